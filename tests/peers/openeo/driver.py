"""The reference driver (PyPI `openeo-driver`) with the back-end that it brings for its own tests: graphs of numbers are really
computed, user-defined processes are really stored, cubes are mocks. User `u`, password `u123`.

  driver.py PORT

GET /__seen gives the bodies that came since it was asked before: [[method, path, body], ..].
"""
import os, sys
import openeo_driver

os.environ["OPENEO_BACKEND_CONFIG"] = os.path.join(os.path.dirname(openeo_driver.__file__), "dummy", "dummy_config.py")
from flask import jsonify, request
from openeo_driver.dummy.dummy_backend import DummyBackendImplementation
from openeo_driver.views import build_app
from werkzeug.serving import run_simple

app = build_app(backend_implementation=DummyBackendImplementation())
SEEN = []

@app.before_request
def note():
    if request.is_json and request.data:
        SEEN.append([request.method, request.path, request.get_json(silent=True)])

@app.get("/__seen")
def seen():
    told = list(SEEN)
    SEEN.clear()
    return jsonify(told)

run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
