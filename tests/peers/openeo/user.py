"""What a user writes for the reference's job manager. Ours is `tests/openeo_peer/user.rs`."""
import os
import openeo
import pandas
from openeo.extra.job_management import MultiBackendJobManager

def run(url, jobs, parallel, graph, out):
    manager = MultiBackendJobManager(poll_sleep=1, root_dir=out)
    def connection():
        return openeo.connect(url).authenticate_basic("u", "u123")
    manager.add_backend("local", connection=connection, parallel_jobs=parallel)
    table = pandas.DataFrame({"title": [f"job {number}" for number in range(jobs)]})
    def start(row, connection, **_):
        return connection.create_job(graph, title=row["title"])
    manager.run_jobs(df=table, start_job=start, job_db=os.path.join(out, "jobs.csv"))
