//! One graph with parameters, as a job for each tile of an area and each month of a season, on a back-end of this program's own.
//! `cargo run --example openeo_tiles`

use std::error::Error;
use std::time::Duration;

use fulmar::client::openeo::{
    BackEnd, BoundingBox, Connection, NewJob, Parameter, Period, ProcessGraph, RunOptions, run_jobs,
};
use openeo_server::{Config, Server};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::start(Config::quick())?; // Yours would be: Connection::connect("openeo.example")
    let connection = Connection::connect(&server.url())?;
    connection.authenticate_basic("u", "u123")?;
    println!("{}\n", connection.list_collections()?);

    let (tile, month) = (Parameter::bounding_box("tile"), Parameter::temporal_interval("month"));
    let ndvi = ProcessGraph::load_collection("SENTINEL2_L2A")
        .spatial_extent(&tile)
        .temporal_interval(&month)
        .bands(["B04", "B08"])
        .process("ndvi", json!({}))
        .save_result("GTiff");
    assert_eq!(ndvi.parameters(), ["month", "tile"]);

    let mut jobs = Vec::new();
    for tile in BoundingBox::new(3.0, 51.0, 4.0, 51.5).split_by_size(0.5)? {
        for month in Period::new("2022-03-01", "2022-06-01")?.split_by_months(1)? {
            let graph = ndvi.fill(&json!({"tile": tile.to_json(), "month": month.to_json()}))?;
            jobs.push(NewJob::new(graph).title(&format!("{} at {}, {}", month.start(), tile.west, tile.south)));
        }
    }

    let soon = Duration::from_millis(20); // A back-end that many share deserves the default, 60 s.
    let report = run_jobs([BackEnd::new(&connection)], jobs, &RunOptions::new().poll(soon, soon))?;
    println!("{report}");
    for job in connection.list_jobs()?.iter() {
        println!("{}: {} ({})", job.id(), job.title().unwrap_or_default(), job.status());
    }
    assert!(report.is_success());
    Ok(())
}
