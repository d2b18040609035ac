//! What holds for everything that a back-end, a file or a user may hand in, tried on values made at
//! random.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use super::documents::collection::Collection;
use super::documents::format::FileFormats;
use super::documents::job::JobDescription;
use super::documents::listing::{Listed, Listing};
use super::documents::runtime::UdfRuntimes;
use super::processes::process::Process;
use super::*;
use crate::client::random::{Random, for_all};

const ROUNDS: u64 = 5_000;

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "id", "title", "description", "type", "license", "extent", "spatial", "temporal", "bbox", "interval", "summaries", "eo:bands",
    "bands", "name", "cube:dimensions", "values", "parameters", "schema", "default", "optional", "returns", "process_graph",
    "process_id", "arguments", "result", "from_node", "from_parameter", "namespace", "data", "x", "input", "output",
    "gis_data_types", "versions", "tags", "libraries", "version", "categories", "deprecated", "anyOf", "status", "progress",
    "usage", "value", "unit", "west", "south", "east", "north", "crs", "a",
];
const TEXTS: &[&str] = &[
    "",
    "a",
    "x",
    "data",
    "bands",
    "2015-07-06T00:00:00Z",
    "\u{1b}[31m\nred\u{202e}",
    "number",
    "string",
    "array",
    "null",
    "B04",
    "EPSG:4326",
    "4326",
    "\u{feff}",
    "1e999",
    "add",
];

/// A table of a stranger's words steers no terminal, and has no line of its own but the rows'.
fn assert_harmless(table: impl Display) {
    let text = table.to_string();
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
}

fn listed<T: Listed>(random: &mut Random) -> Listing<T>
where
    Listing<T>: Display,
{
    let items = (0..random.below(4)).map(|_| random.json(NAMES, TEXTS, 4)).collect::<Vec<_>>();
    let list: Listing<T> = Listing::new(items.clone(), None);
    assert_eq!(list.len(), items.len(), "none is lost");
    assert!(list.to_string().lines().count() <= 1 + list.len());
    assert_harmless(&list);
    list
}

/// Gives every kind of document JSON of any shape, with the field names that it knows.
#[test]
fn whatever_a_back_end_lists_is_read_and_shown() {
    for_all(ROUNDS, |random| {
        for collection in &listed::<Collection>(random) {
            assert_harmless(collection);
            let _ = (collection.bands(), collection.extent(), collection.interval(), collection.dimensions());
        }
        for process in &listed::<Process>(random) {
            assert_harmless(process);
            for parameter in process.parameters() {
                let cell = random.text(TEXTS);
                if let Ok(Some(value)) = parameter.value_of(&cell) {
                    assert!(
                        value.is_string() || serde_json::from_str::<Value>(&cell.to_lowercase()).is_ok(),
                        "{cell:?}"
                    );
                }
            }
        }
        listed::<JobDescription>(random);
        let formats = FileFormats::new(random.json(NAMES, TEXTS, 5));
        assert_harmless(&formats);
        let _ = formats.output().iter().chain(&formats.input()).map(|format| format.options().len()).sum::<usize>();
        let runtimes = UdfRuntimes::new(random.json(NAMES, TEXTS, 5));
        assert_harmless(&runtimes);
        let _ = runtimes.iter().map(|runtime| runtime.libraries("a").len()).sum::<usize>();
    });
}

/// Fills some of the parameters in a graph of any shape: exactly the others must be left.
#[test]
fn a_graph_that_is_filled_has_the_values_and_nothing_else_has_changed() {
    for_all(ROUNDS, |random| {
        let argument = random.json(NAMES, TEXTS, 5);
        let graph = json!({"a": {"process_id": "add", "arguments": {"x": argument}, "result": true}});
        let Ok(graph) = ProcessGraph::from_json(graph) else { return };
        let mut values = Map::new();
        let parameters = graph.parameters();
        for name in &parameters {
            if random.below(4) > 0 {
                values.insert(name.clone(), json!(random.below(100)));
            }
        }
        match graph.fill(&Value::Object(values.clone())) {
            Ok(filled) => {
                let left: Vec<String> = parameters.into_iter().filter(|name| !values.contains_key(name)).collect();
                assert_eq!(filled.parameters(), left);
                assert_eq!(filled.fill(&json!({})).expect("nothing to fill"), filled);
            }
            // The one name that may be a callback's own.
            Err(error) => {
                assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains("another name")), "{error}")
            }
        }
    });
}

/// Reads a CSV table of pieces in any order: each row must have the types of the parameters.
#[test]
fn a_table_of_parameters_gives_a_row_for_each_line_or_says_what_is_wrong() {
    let pieces = ["\n", ",", "\"", "a", "b", "1", "{\"west\":1}", "[1,2]", "true", " ", "\u{feff}", "\r\n", "\"\""];
    for_all(ROUNDS, |random| {
        let parameters = [
            Parameter::number("a").optional(),
            Parameter::string("b").default_value(json!("d")),
            Parameter::array("1").optional(),
        ];
        let table = format!("a,b,1\n{}", random.text(&pieces));
        match parameters_from_csv(table.as_bytes(), &parameters) {
            Ok(rows) => {
                assert!(rows.len() <= table.lines().count());
                assert!(rows.iter().all(|row| row["a"].is_number() || row["a"].is_null()), "{rows:?}");
                assert!(rows.iter().all(|row| row["b"].is_string() && (row["1"].is_array() || row["1"].is_null())));
            }
            Err(error) => assert!(matches!(error, OpenEoError::Invalid(_)), "{error}"),
        }
    });
}

/// Splits an area of any place and size: the tiles' areas must add up to it.
#[test]
fn tiles_lie_side_by_side_and_cover_the_area() {
    for_all(ROUNDS, |random| {
        let edge = |random: &mut Random, most: f64| (random.below(2_000_001) as f64 / 1e6 - 1.0) * most;
        let (west, south) = (edge(random, 179.0), edge(random, 89.0));
        let (width, height) = ((1 + random.below(1_000)) as f64 / 97.0, (1 + random.below(1_000)) as f64 / 1_013.0);
        let area = BoundingBox::new(west, south, west + width, south + height);
        let tiles = match random.below(2) {
            0 => area.split_by_size((10 + random.below(1_000)) as f64 / 613.0),
            _ => area.split_by_count(1 + random.below(9) as u32, 1 + random.below(9) as u32),
        };
        // What crosses the antimeridian has no even columns.
        let Ok(tiles) = tiles else { return assert!(west + width > 180.0, "{area:?}") };
        let covered: f64 = tiles.iter().map(|tile| (tile.east - tile.west) * (tile.north - tile.south)).sum();
        assert!((covered / (width * height) - 1.0).abs() < 1e-6, "{area:?}: {covered}");
        for tile in &tiles {
            assert!(tile.west < tile.east && tile.south < tile.north, "{tile:?}");
            assert!((-180.0..=180.0).contains(&tile.west) && (-180.0..=180.0).contains(&tile.east), "{tile:?}");
            assert_eq!(BoundingBox::from_json(&tile.to_json()).expect("its own"), *tile);
        }
    });
}

#[test]
fn periods_follow_each_other_from_the_first_day_to_the_last() {
    for_all(ROUNDS, |random| {
        let day = |random: &mut Random| {
            let (year, month, day) = (1_600 + random.below(800), 1 + random.below(12), 1 + random.below(31));
            format!("{year:04}-{month:02}-{day:02}")
        };
        let (from, to) = (day(random), day(random));
        let Ok(period) = Period::new(&from, &to) else { return };
        let pieces = match random.below(2) {
            0 => period.split_by_months(1 + random.below(40) as u32),
            _ => period.split_by_days(1 + random.below(400) as u32),
        };
        let Ok(pieces) = pieces else { return assert!(period.split_by_days(10).is_ok(), "{period}") };
        assert_eq!((pieces[0].start(), pieces.last().map(Period::end)), (from, Some(to)));
        assert!(pieces.windows(2).all(|pair| pair[0].end() == pair[1].start() && pair[0].start() < pair[0].end()));
    });
}
