-- For a worker of many types: the first tasks of all types in their order. An expression, so that no other statement's plan takes
-- this index for that of one type.
CREATE INDEX fulmar_task_first ON fulmar_task ((rank + 0), id) WHERE gate = 0;
