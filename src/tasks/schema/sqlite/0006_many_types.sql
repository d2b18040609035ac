-- For a worker of many types: the first tasks of all types in their order, instead of those of each type.
CREATE INDEX fulmar_task_first ON fulmar_task (priority DESC, id) WHERE gate = 0;
