"""The reference client, for tests/openeo_peer.rs: what it sees of our jobs, what it makes, and what it costs.

  reference.py list URL | create URL TITLE | download URL ID DIR | manage URL JOBS PARALLEL DIR
"""
import json, os, sys, time
import openeo

GRAPH = {"lc": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": True}}

def connect(url):
    return openeo.connect(url).authenticate_basic("u", "u123")

command, url, *rest = sys.argv[1:]
if command == "list":
    print(json.dumps([{"id": j["id"], "title": j.get("title"), "status": j["status"]} for j in connect(url).list_jobs()]))
elif command == "create":
    job = connect(url).create_job(GRAPH, title=rest[0])
    job.start_and_wait(print=lambda *_: None, max_poll_interval=0.3)
    print(json.dumps({"id": job.job_id}))
elif command == "download":
    job = connect(url).job(rest[0])
    print(json.dumps({"status": job.status(), "title": job.describe()["title"],
                      "files": [str(p) for p in job.get_results().download_files(rest[1])]}))
elif command == "manage":
    import logging, pandas
    from openeo.extra.job_management import MultiBackendJobManager
    logging.disable(logging.WARNING)
    manager = MultiBackendJobManager(poll_sleep=1, root_dir=rest[2])
    manager.add_backend("local", connection=lambda: connect(url), parallel_jobs=int(rest[1]))
    table = pandas.DataFrame({"title": [f"job {n}" for n in range(int(rest[0]))]})
    began = time.time()
    manager.run_jobs(df=table, start_job=lambda row, connection, **_: connection.create_job(GRAPH, title=row["title"]),
                     job_db=os.path.join(rest[2], "jobs.csv"))
    took = time.time() - began
    states = pandas.read_csv(os.path.join(rest[2], "jobs.csv"))["status"].value_counts().to_dict()
    print(json.dumps({"seconds": took, "states": states}))
