"""The real client, ibmpairs, on queries from a file: what it submits, prints and downloads.

    pairs_reference.py HOST QUERIES.jsonl FOLDER     with QUERY_MIN_STATUS_INTERVAL=1

Prints a JSON list with an object for each query: its `submit` form, its `dict` form before it was run, its `id`.
"""
import json
import os
import sys

import ibmpairs.authentication as authentication
import ibmpairs.client as client
import ibmpairs.query as query

host, path, folder = sys.argv[1:]
basic = authentication.Basic(host=host, username="me", password="a password", legacy=True, version=2)
user = client.Client(host=host, authentication=basic, legacy=True, version=2)

queries, answer = [], []
with open(path) as lines:
    for line in lines:
        one = query.query_from_dict(json.loads(line))
        one.download_folder = folder + os.sep
        forms = {"submit": json.loads(one.to_json_query_post()), "dict": json.loads(one.to_json())}
        del forms["dict"]["download_folder"]
        # Empty answers, which it always has.
        for name in ("submit_response", "status_response", "merge_response"):
            forms["dict"].pop(name, None)
        queries.append(one)
        answer.append(forms)

query.batch_query(queries, client=user, workers=8, status_interval=1)
for one, forms in zip(queries, answer):
    forms["id"] = one.id
    forms["status"] = one.download_status
json.dump(answer, sys.stdout)
