"""openEO back-end on openeo-fastapi (PyPI): its routes, models, error handler, ORM and OIDC check are theirs;
the job engine (start/logs/results/cancel/delete, all 501 upstream) and the SQLite switch are ours (~110 lines).

  API_DNS=127.0.0.1:8083 API_TLS=false API_TITLE=t API_DESCRIPTION=d OIDC_URL=http://127.0.0.1:8090 \
  OIDC_ORGANISATION=local STAC_API_URL=http://127.0.0.1:9/ AUTH=basic QUEUE_S=0.5 RUN_S=1.5 \
  uvicorn back_end:app --host 127.0.0.1 --port 8083
Root http://127.0.0.1:8083/openeo/1.1.0 ; ready probe GET /openeo/1.1.0/health -> 200 OK
GET /__count says how many requests came. With SIGNED=1 links to assets are signed, and want no credentials.
"""
import base64, datetime as dt, hashlib, os, threading, time, uuid, tempfile
from pathlib import Path
os.environ.update({k: os.environ.get(k, "x") for k in ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRESQL_HOST", "POSTGRESQL_PORT", "POSTGRES_DB", "ALEMBIC_DIR")})
from fastapi import FastAPI, Depends, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import CHAR, create_engine
from sqlalchemy.types import TypeDecorator, UUID
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.ext.compiler import compiles
from openeo_fastapi.api.app import OpenEOApi
from openeo_fastapi.api.models import BatchJob, JobsRequest
from openeo_fastapi.api.types import Billing, Endpoint, Error, FileFormat, GisDataType, Plan, Status
from openeo_fastapi.client.auth import Authenticator, User
from openeo_fastapi.client.core import OpenEOCore
from openeo_fastapi.client.jobs import Job, JobsRegister
from openeo_fastapi.client.psql import engine as db
from openeo_fastapi.client.psql.settings import BASE
from openeo_fastapi.client.settings import AppSettings

@compiles(ENUM, "sqlite")
def _enum(t, c, **kw): return "VARCHAR(32)"
class GUID(TypeDecorator):           # upstream passes str(pk) into UUID columns: psycopg2 takes that, SQLite does not
    impl, cache_ok = CHAR(36), True
    def process_bind_param(self, v, d): return None if v is None else str(v)
    def process_result_value(self, v, d): return None if v is None else uuid.UUID(v)
for t in BASE.metadata.tables.values():
    for c in t.c:
        if isinstance(c.type, UUID): c.type = GUID()
DATA = Path(os.environ.get("DATA") or tempfile.mkdtemp(prefix="ofa-"))
db._engine = create_engine(f"sqlite:///{DATA}/jobs.db", connect_args={"check_same_thread": False, "timeout": 30})
BASE.metadata.create_all(db._engine)
Q, R, P = (float(os.environ.get(k, d)) for k, d in (("QUEUE_S", "1"), ("RUN_S", "2"), ("PARALLEL", "4")))
SLOTS = threading.Semaphore(int(P)); X = {}   # job_id -> {"logs": [], "progress": .., "cancel": bool}
SIGNED, KEY, COUNT = os.environ.get("SIGNED"), os.urandom(16), {"requests": 0}
def sign(job_id, name): return hashlib.sha256(KEY + f"{job_id}/{name}".encode()).hexdigest()
def err(status, code, msg): return HTTPException(status_code=status, detail=Error(code=code, message=msg))
auth = Authenticator.validate

class Jobs(JobsRegister):
    def _get(self, job_id, user):
        j = db.get(Job, job_id)
        if not j or j.user_id != user.user_id: raise err(404, "JobNotFound", f"No job found with id: {job_id}")
        return j
    def _log(self, job_id, level, msg):
        L = X.setdefault(str(job_id), {"logs": []})["logs"]
        L.append({"id": f"{len(L)}", "level": level, "message": msg, "time": dt.datetime.utcnow().strftime("%Y-%m-%dT%H:%M:%SZ")})
    def _status(self, job_id, status):
        j = db.get(Job, job_id)
        if j: j.status = status; db.modify(j)
    def get_job(self, job_id: uuid.UUID, user: User = Depends(auth)):
        j = self._get(job_id, user); x = X.get(str(job_id), {})
        kw = {"progress": x["progress"]} if "progress" in x else {}
        if j.status == Status.finished: kw.update(costs=4.0, usage={"cpu": {"value": 12, "unit": "cpu-seconds"}})
        return BatchJob(id=str(j.job_id), **j.dict(), **kw)
    def update_job(self, job_id: uuid.UUID, body: JobsRequest, user: User = Depends(auth)):
        # Upstream sends a text with its 204, which breaks the connection for the request after it.
        super().update_job(job_id, body, user); return Response(status_code=204)
    def start_job(self, job_id: uuid.UUID, user: User = Depends(auth)):
        j = self._get(job_id, user)
        if j.status not in (Status.queued, Status.running):
            X[str(job_id)] = {"logs": [], "progress": 0}
            self._status(job_id, Status.queued); self._log(job_id, "info", "queued")
            threading.Thread(target=self._run, args=(job_id, j.title or ""), daemon=True).start()
        return Response(status_code=202)
    def _run(self, job_id, title):
        x = X[str(job_id)]
        with SLOTS:
            time.sleep(Q)
            if x.get("cancel"): return
            self._status(job_id, Status.running); self._log(job_id, "debug", "executor"); self._log(job_id, "info", "running")
            for k in range(10):
                time.sleep(R * (20 if "slow" in title else 1) / 10); x["progress"] = 10 * (k + 1)
                if x.get("cancel"): return
            if "fail" in title:
                self._log(job_id, "error", "out of memory"); return self._status(job_id, Status.error)
            d = DATA / str(job_id); d.mkdir(exist_ok=True)
            (d / "openEO.tif").write_bytes(b"II*\0\x08\0\0\0" + os.urandom(4096)); (d / "out.csv").write_text("a,b\n1,2\n")
            self._log(job_id, "info", "finished"); self._status(job_id, Status.finished)
    def logs(self, job_id: uuid.UUID, offset: str = None, limit: int = None, level: str = "debug", user: User = Depends(auth)):
        self._get(job_id, user); order = ["debug", "info", "warning", "error"]
        L = [l for l in X.get(str(job_id), {}).get("logs", []) if offset is None or int(l["id"]) > int(offset)]
        L = [l for l in L if order.index(l["level"]) >= order.index(level)]
        return {"level": level, "logs": L[:limit], "links": []}
    def get_results(self, job_id: uuid.UUID, request: Request = None, user: User = Depends(auth)):
        j = self._get(job_id, user)
        if j.status == Status.error: raise err(424, "JobError", "out of memory")
        if j.status != Status.finished: raise err(400, "JobNotFinished", "Batch job has not finished computing the results yet.")
        base = f"http://{self.settings.API_DNS}{self.settings.OPENEO_PREFIX}/jobs/{job_id}/results"
        return {"type": "Collection", "stac_version": "1.0.0", "id": str(job_id), "title": j.title, "description": j.description or "", "license": "proprietary",
                "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
                "links": [{"rel": "canonical", "href": base, "type": "application/json"}],
                "assets": {f.name: {"href": f"{base}/{f.name}" + ("?sig=" + sign(job_id, f.name) if SIGNED else ""), "type": {"tif": "image/tiff; application=geotiff", "csv": "text/csv"}[f.suffix[1:]],
                           "roles": ["data"], "file:size": f.stat().st_size} for f in sorted((DATA / str(job_id)).iterdir())}}
    def cancel_job(self, job_id: uuid.UUID, user: User = Depends(auth)):
        j = self._get(job_id, user)
        if j.status in (Status.queued, Status.running): X[str(job_id)]["cancel"] = True; self._status(job_id, Status.canceled)
        return Response(status_code=204)
    def delete_job(self, job_id: uuid.UUID, user: User = Depends(auth)):
        self.cancel_job(job_id, user); db.delete(Job, job_id); return Response(status_code=204)

settings = AppSettings()
fmt = [FileFormat(title="GTiff", gis_data_types=[GisDataType("raster")], parameters={})]
client = OpenEOCore(input_formats=fmt, output_formats=fmt, links=[], jobs=Jobs(settings, []),
                    billing=Billing(currency="credits", default_plan="free", plans=[Plan(name="free", description="d", paid=False)]))
OpenEOCore.endpoints.extend([Endpoint(path="/credentials/basic", methods=["GET"]), Endpoint(path="/me", methods=["GET"])])  # class-level list
api = OpenEOApi(client=client, app=FastAPI()); app = api.app; PFX = settings.OPENEO_PREFIX

if os.environ.get("AUTH", "basic") == "basic":
    def basic(authorization: str = Header(default=None)):
        if not authorization: raise err(401, "AuthenticationRequired", "Unauthorized.")
        if not authorization.startswith("Bearer basic//tok-"): raise err(403, "TokenInvalid", "The token is not valid.")
        sub = authorization.split("tok-", 1)[1]
        u = db.get_first_or_default(User, db.Filter(column_name="oidc_sub", value=sub))
        if not u: u = User(user_id=uuid.uuid5(uuid.NAMESPACE_URL, sub), oidc_sub=sub); db.create(u)
        return u
    api.override_authentication(basic)
    @app.get(PFX + "/credentials/basic")
    def credentials_basic(authorization: str = Header(default="")):
        try: u, p = base64.b64decode(authorization.split("Basic ", 1)[1]).decode().split(":", 1)
        except Exception: raise err(401, "AuthenticationRequired", "Unauthorized.")
        if p != u + "123": raise err(403, "CredentialsInvalid", "Credentials are not correct.")
        return {"access_token": "tok-" + u}

@app.middleware("http")
async def count(request: Request, call_next):
    if request.url.path != "/__count": COUNT["requests"] += 1
    return await call_next(request)
@app.get("/__count")
def counted(): return COUNT

def signed_or_user(job_id: uuid.UUID, name: str, sig: str = None, authorization: str = Header(default=None)):
    if not (SIGNED and sig == sign(job_id, name)): (basic if "basic" in globals() else auth)(authorization)
@app.api_route(PFX + "/jobs/{job_id}/results/{name}", methods=["GET", "HEAD"])
def asset(job_id: uuid.UUID, name: str, allowed: None = Depends(signed_or_user)):
    return FileResponse(DATA / str(job_id) / name, headers={"Accept-Ranges": "bytes"} if os.environ.get("LIE_RANGES") else None)  # starlette 0.27 ignores Range
