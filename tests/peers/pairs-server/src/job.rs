//! Jobs: a few numbers each, and a result that is made when it is asked for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::faults::{hash, mix};

/// What became of one job.
#[derive(Clone, Debug)]
pub struct JobAccount {
    /// Its id.
    pub id: String,
    /// The query's name, or nothing.
    pub name: String,
    /// What was submitted.
    pub query: Value,
    /// The status code that it ends with.
    pub code: i64,
    /// Whether it has come to its end by now.
    pub is_finished: bool,
    /// Whether the answer to its submission was lost on purpose.
    pub reply_was_lost: bool,
    /// How often its result was served whole.
    pub served: u32,
    /// How many bytes of results were sent, cut ones included.
    pub bytes: u64,
}

pub(crate) struct Jobs {
    by_id: HashMap<String, usize>,
    jobs: Vec<Job>,
    /// When each slot is free again.
    slots: BinaryHeap<Reverse<Instant>>,
}

#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) query: Value,
    /// Stands for the query where faults are decided.
    pub(crate) key: u64,
    pub(crate) code: i64,
    pub(crate) flag: bool,
    pub(crate) not_ready: u32,
    pub(crate) reply_was_lost: bool,
    pub(crate) served: u32,
    pub(crate) bytes: u64,
    submitted: SystemTime,
    start: Instant,
    end: Instant,
}

impl Jobs {
    pub(crate) fn new(slots: usize) -> Jobs {
        let now = Instant::now();
        Jobs { by_id: HashMap::new(), jobs: Vec::new(), slots: (0..slots.max(1)).map(|_| Reverse(now)).collect() }
    }

    /// A new job, which runs for `run` as soon as there is a slot.
    pub(crate) fn create(&mut self, query: Value, key: u64, code: i64, run: Duration, not_ready: u32) -> &mut Job {
        let now = Instant::now();
        let start = self.slots.pop().map_or(now, |Reverse(free)| free.max(now));
        let end = start + run;
        self.slots.push(Reverse(end));
        let submitted = SystemTime::now();
        let hour = submitted.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3_600 * 3_600;
        let id = format!("{hour:010}_{:08}", self.jobs.len() + 1);
        self.by_id.insert(id.clone(), self.jobs.len());
        self.jobs.push(Job {
            id,
            query,
            key,
            code,
            flag: false,
            not_ready,
            reply_was_lost: false,
            served: 0,
            bytes: 0,
            submitted,
            start,
            end,
        });
        let last = self.jobs.len() - 1;
        &mut self.jobs[last]
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Job> {
        self.by_id.get(id).map(|&at| &self.jobs[at])
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Job> {
        self.by_id.get(id).map(|&at| &mut self.jobs[at])
    }

    /// One page of the list, newest first, and how many there are.
    pub(crate) fn page(&self, favorites: bool, page: usize, size: usize) -> Value {
        let size = size.clamp(1, 1_000);
        let chosen = || self.jobs.iter().rev().filter(|job| !favorites || job.flag);
        let count = if favorites { chosen().count() } else { self.jobs.len() };
        let list: Vec<Value> = chosen().skip(page.saturating_sub(1) * size).take(size).map(Job::status).collect();
        json!({"totPages": count.div_ceil(size), "queryJobList": list})
    }

    pub(crate) fn accounts(&self) -> Vec<JobAccount> {
        let account = |job: &Job| JobAccount {
            id: job.id.clone(),
            name: job.name().to_owned(),
            query: job.query.clone(),
            code: job.code,
            is_finished: Instant::now() >= job.end,
            reply_was_lost: job.reply_was_lost,
            served: job.served,
            bytes: job.bytes,
        };
        self.jobs.iter().map(account).collect()
    }
}

impl Job {
    pub(crate) fn name(&self) -> &str {
        self.query["name"].as_str().unwrap_or("")
    }

    pub(crate) fn current_code(&self) -> i64 {
        let now = Instant::now();
        if now < self.start {
            return 0;
        }
        if now >= self.end {
            return self.code;
        }
        match self.share(now) {
            share if share < 0.1 => 1,
            share if share < 0.8 => 10,
            share if share < 0.9 => 11,
            _ => 12,
        }
    }

    fn share(&self, now: Instant) -> f64 {
        let whole = (self.end - self.start).as_secs_f64().max(1e-9);
        now.saturating_duration_since(self.start).as_secs_f64() / whole
    }

    pub(crate) fn status(&self) -> Value {
        let code = self.current_code();
        let percent = match code {
            0 | 1 => 0.0,
            20.. => 100.0,
            _ => (self.share(Instant::now()) * 1_000.0).round() / 10.0,
        };
        let spatial = &self.query["spatial"];
        let edge = |at: usize| {
            if spatial["type"] == "square" { spatial["coordinates"][at].as_f64().unwrap_or(0.0) } else { 0.0 }
        };
        let millis = self.submitted_millis();
        let mut status = json!({
            "id": self.id, "status": name_of(code), "start": millis, "pql": null, "folder": millis.to_string(),
            "swLat": edge(0), "swLon": edge(1), "neLat": edge(2), "neLon": edge(3),
            "nickname": self.query.get("name"), "exPercent": percent, "flag": self.flag,
            "hadoopId": if code >= 10 { json!("1535736177095_390855") } else { Value::Null },
            "ready": code == 20, "rtStatus": name_of(code), "pdStatus": null, "statusCode": code,
        });
        if code >= 40 {
            status["message"] = format!("simulated {}", name_of(code)).into();
        }
        status
    }

    pub(crate) fn history(&self) -> Value {
        json!({
            "id": 1, "user": {"id": 0, "login": ""}, "type": self.query["spatial"]["type"], "date": self.submitted_millis(),
            "apiString": null, "queryjob": self.id, "apiJson": self.query.to_string(), "sizeTotal": null, "sizeRaw": null,
            "sizeZip": null, "countTotal": null,
        })
    }

    fn submitted_millis(&self) -> u64 {
        let since = self.submitted.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(0)
    }

    /// What its download is, whole, with its content type.
    pub(crate) fn result(&self, raster: usize) -> (Vec<u8>, &'static str) {
        let is_csv = self.query["outputType"] == "csv";
        if self.query["spatial"]["type"] == "point" {
            return match is_csv {
                true => (points_csv(&self.query).into_bytes(), "text/csv"),
                false => (points_json(&self.query).to_string().into_bytes(), "application/json;charset=UTF-8"),
            };
        }
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        if is_csv {
            let rows = "PropertyString,Region,Timestamp,Value\n'county:50897',50897,1514808000000,-8.7\n";
            files.push(("Vector_Data_Output.csv".to_owned(), rows.into()));
            files.push(("STATUS".to_owned(), b"SUCCESS".to_vec()));
        } else {
            let base = "Daily US weather (PRISM)-Daily Maximum Temperature-10_31_2018T12_00_00";
            let info = json!({"files": [{"name": base, "datalayerId": "92", "timestamp": 1_540_987_200, "layerType": "raster"}]});
            files.push((format!("{base}.tiff"), noise(&self.id, raster)));
            files.push((format!("{base}.tiff.json"), br#"{"pixelNoDataVal":-9999.0,"datalayerId":"92"}"#.to_vec()));
            files.push(("output.info".to_owned(), info.to_string().into_bytes()));
        }
        files.push(("data_acknowledgement.txt".to_owned(), b"simulated\n".to_vec()));
        (stored_zip(&files), "application/zip")
    }
}

pub(crate) fn points_json(query: &Value) -> Value {
    let value = |layer: &Value| {
        json!({
            "layerId": layer["id"], "layerName": "Temperature", "dataset": "Weather Forecast",
            "timestamp": 1_527_811_200_000_u64, "longitude": coordinate(query, 1), "latitude": coordinate(query, 0),
            "value": "288.73", "property": "",
        })
    };
    json!({"data": query["layers"].as_array().into_iter().flatten().map(value).collect::<Vec<_>>()})
}

pub(crate) fn points_csv(query: &Value) -> String {
    let mut text = "layerId,timestamp,longitude,latitude,value,region,property,alias\n".to_owned();
    for layer in query["layers"].as_array().into_iter().flatten() {
        let id = layer["id"].as_str().unwrap_or("0");
        text += &format!("{id},1527811200000,{:?},{:?},288.73,,,\n", coordinate(query, 1), coordinate(query, 0));
    }
    text
}

fn coordinate(query: &Value, at: usize) -> f64 {
    query["spatial"]["coordinates"][at].as_f64().unwrap_or(0.0)
}

pub(crate) fn name_of(code: i64) -> &'static str {
    match code {
        0 => "Queued",
        1 => "Initializing",
        10 => "Running",
        11 => "Writing",
        12 => "Packaging",
        20 => "Succeeded",
        21 => "NoDataFound",
        30 => "Killed",
        31 => "Deleted",
        40 => "Failed",
        41 => "FailedConversion",
        42 => "FailedProcessor",
        43 => "MaxAllowedQuerySizeExceeded",
        _ => "Bewildered",
    }
}

/// The head of a TIFF, and then what no compression makes smaller; the same for the same id.
fn noise(id: &str, size: usize) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    let mut state = hash(id.as_bytes());
    while bytes.len() < size + 8 {
        state = mix(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size + 8);
    bytes
}

/// An archive that stores its files as they are. Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
fn stored_zip(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("results are smaller than 4 GiB").to_le_bytes();
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let offset = length(&zip);
        // Version 2.0, no flags, stored, 1980-01-01 00:00.
        let mut entry = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        entry.extend(crc32fast::hash(content).to_le_bytes());
        entry.extend(length(content));
        entry.extend(length(content));
        entry.extend(&length(name.as_bytes())[..2]);
        entry.extend([0, 0]);
        zip.extend(b"PK\x03\x04");
        zip.extend(&entry);
        zip.extend(name.as_bytes());
        zip.extend(content);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&entry);
        // No comment, first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(offset);
        directory.extend(name.as_bytes());
    }
    let offset = length(&zip);
    let count = &length(&vec![0; files.len()])[..2];
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count);
    zip.extend(count);
    zip.extend(length(&directory));
    zip.extend(offset);
    zip.extend([0, 0]);
    zip
}
