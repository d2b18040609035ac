"""The reference client, for tests/openeo_peer: what it sees of our jobs, what it makes, and what it costs.

  reference.py list URL | create URL TITLE | download URL ID DIR | manage URL JOBS PARALLEL DIR
  reference.py discover URL COLLECTION | store URL ID | compute URL ID FILE | split AREAS
"""
import json, os, sys, time
import openeo

GRAPH = {"lc": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": True}}

CELSIUS = {"subtract1": {"process_id": "subtract", "arguments": {"x": {"from_parameter": "f"}, "y": 32}},
           "divide1": {"process_id": "divide", "arguments": {"x": {"from_node": "subtract1"}, "y": 1.8}, "result": True}}

def connect(url):
    return openeo.connect(url).authenticate_basic("u", "u123")

command, url, *rest = sys.argv[1:]
if command == "split":
    # Floats bit by bit: two clients may print the same one in two ways. As they are in the grid: before it, degrees are turned
    # by 360 in a way that costs the last bits, which is left to areas that need it.
    import struct
    from openeo.extra.job_management._job_splitting import _SizeBasedTileGrid
    from openeo.util import BBoxDict
    bits = lambda number: struct.unpack("<Q", struct.pack("<d", number))[0]
    def tiles(area, size):
        if -180 <= area["west"] < area["east"] <= 180 or area["crs"] != 4326:
            edges = {name: area[name] for name in ("west", "south", "east", "north")}
            return _SizeBasedTileGrid._split_bounding_box(BBoxDict(**edges), size)
        return _SizeBasedTileGrid(epsg=area["crs"], size=size).get_tiles(area).geometry
    print(json.dumps([[[bits(edge) for edge in tile.bounds] for tile in tiles(*asked)] for asked in json.loads(url)]))
elif command == "list":
    print(json.dumps([{"id": j["id"], "title": j.get("title"), "status": j["status"]} for j in connect(url).list_jobs()]))
elif command == "create":
    job = connect(url).create_job(GRAPH, title=rest[0])
    job.start_and_wait(print=lambda *_: None, max_poll_interval=0.3)
    print(json.dumps({"id": job.job_id}))
elif command == "download":
    job = connect(url).job(rest[0])
    print(json.dumps({"status": job.status(), "title": job.describe()["title"],
                      "files": [str(p) for p in job.get_results().download_files(rest[1])]}))
elif command == "discover":
    connection = openeo.connect(url)
    print(json.dumps({
        "collections": list(connection.list_collections()), "collection": connection.describe_collection(rest[0]),
        "processes": list(connection.list_processes()), "process": connection.describe_process("add"),
        "file_formats": connection.list_file_formats(), "udf_runtimes": connection.list_udf_runtimes(),
    }))
elif command == "store":
    from openeo.api.process import Parameter
    parameters = [
        Parameter.number("f", "Degrees Fahrenheit."), Parameter.integer("n", "n", default=2), Parameter.string("s", "s", default=None),
        Parameter.boolean("b", "b", default=True), Parameter.array("a", "a", default=[]), Parameter.object("o", "o", default={}),
        Parameter.bounding_box("area", default=None), Parameter.temporal_interval("month", default=None),
    ]
    connection = connect(url)
    connection.save_user_defined_process(rest[0], CELSIUS, parameters=parameters, summary="To Celsius", description="Of Fahrenheit.")
    print(json.dumps({"list": list(connection.list_user_defined_processes()), "one": connection.user_defined_process(rest[0]).describe()}))
elif command == "compute":
    connection = connect(url)
    call = {"call1": {"process_id": rest[0], "namespace": "user", "arguments": {"f": 77}, "result": True}}
    values = [connection.execute(GRAPH), connection.execute(call)]
    connection.download(connection.load_collection("S2_FOOBAR").save_result("GTiff").flat_graph(), rest[1])
    connection.user_defined_process(rest[0]).delete()
    print(json.dumps(values))
elif command == "manage":
    import logging, pandas, signal
    from user import run
    logging.disable(logging.WARNING)
    # If it was killed between noting that a job is to be started and starting it, it waits for that job for ever.
    class WaitsForEver(BaseException):
        pass
    def give_up(*_):
        raise WaitsForEver
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(90)
    began, ended = time.time(), True
    try:
        run(url, int(rest[0]), int(rest[1]), GRAPH, rest[2])
    except WaitsForEver:
        ended = False
    signal.alarm(0)
    took = time.time() - began
    states = pandas.read_csv(os.path.join(rest[2], "jobs.csv"))["status"].value_counts().to_dict()
    sys.stdout.write(json.dumps({"seconds": took, "states": states, "ended": ended}) + "\n")
    sys.stdout.flush()
    # Its threads may wait as well.
    os._exit(0)
