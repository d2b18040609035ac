//! A back-end's description of a collection of data.

use std::fmt;

use serde_json::Value;

use super::listing::{Listed, fields, text, texts};
use super::table::Table;

/// A collection that graphs can load. An entry of the list has fewer details. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    document: Value,
}

impl Collection {
    /// The document as it came: a STAC collection.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// Its id, for `load_collection`.
    pub fn id(&self) -> &str {
        text(&self.document, "id").unwrap_or_default()
    }

    /// Its title.
    pub fn title(&self) -> Option<&str> {
        text(&self.document, "title")
    }

    /// Its description, in CommonMark.
    pub fn description(&self) -> Option<&str> {
        text(&self.document, "description")
    }

    /// Its licence, mostly an SPDX identifier.
    pub fn license(&self) -> Option<&str> {
        text(&self.document, "license")
    }

    /// The names of its bands, in order, each once. It takes them from the first of these that has
    /// any: its dimensions, its summaries, its field `bands` (STAC 1.1), the data variables of its
    /// cube, and the assets of its items.
    pub fn bands(&self) -> Vec<&str> {
        let of_dimensions = fields(&self.document, "cube:dimensions")
            .filter(|(_, dimension)| text(dimension, "type") == Some("bands"))
            .flat_map(|(_, dimension)| texts(dimension, "values"));
        let bands: Vec<&str> = of_dimensions.collect();
        if !bands.is_empty() {
            return bands;
        }
        let summaries = self.document.get("summaries").unwrap_or(&Value::Null);
        for place in [summaries, &self.document] {
            let bands = bands_of(place);
            if !bands.is_empty() {
                return bands;
            }
        }
        // If a cube has no dimension for bands, its values are in variables.
        let holds_data = |variable: &&Value| text(variable, "type").is_none_or(|kind| kind == "data");
        let variables = fields(&self.document, "cube:variables").filter(|(_, variable)| holds_data(variable));
        let variables: Vec<&str> = variables.map(|(name, _)| name.as_str()).collect();
        if !variables.is_empty() {
            return variables;
        }
        let mut bands = Vec::new();
        for name in fields(&self.document, "item_assets").flat_map(|(_, asset)| bands_of(asset)) {
            if !bands.contains(&name) {
                bands.push(name);
            }
        }
        bands
    }

    /// Its names and kinds of dimensions: `("t", "temporal")`.
    pub fn dimensions(&self) -> Vec<(&str, &str)> {
        let kind = |dimension| text(dimension, "type").unwrap_or_default();
        fields(&self.document, "cube:dimensions").map(|(name, dimension)| (name.as_str(), kind(dimension))).collect()
    }

    /// The whole area: west, south, east and north in degrees of WGS 84.
    pub fn extent(&self) -> Option<[f64; 4]> {
        let numbers = self.document.pointer("/extent/spatial/bbox/0")?.as_array()?;
        let numbers: Vec<f64> = numbers.iter().map(Value::as_f64).collect::<Option<_>>()?;
        match numbers[..] {
            [west, south, east, north] | [west, south, _, east, north, _] => Some([west, south, east, north]),
            _ => None,
        }
    }

    /// Its first and its last time, as the back-end writes them; `None` for an open end.
    pub fn interval(&self) -> (Option<&str>, Option<&str>) {
        let end =
            |at: usize| self.document.pointer(&format!("/extent/temporal/interval/0/{at}")).and_then(Value::as_str);
        (end(0), end(1))
    }
}

/// The names in the first of the lists of bands that has any.
fn bands_of(place: &Value) -> Vec<&str> {
    let lists = ["eo:bands", "bands", "raster:bands"].iter().filter_map(|name| place.get(*name)?.as_array());
    let names = lists.map(|list| list.iter().filter_map(|band| text(band, "name")).collect::<Vec<_>>());
    names.into_iter().find(|names| !names.is_empty()).unwrap_or_default()
}

impl Listed for Collection {
    const HEADING: &'static [&'static str] = &["id", "from", "to", "license", "title"];

    fn new(document: Value) -> Collection {
        Collection { document }
    }

    fn name(&self) -> &str {
        self.id()
    }

    fn cells(&self) -> Vec<String> {
        let (from, to) = self.interval();
        let day = |time: Option<&str>| time.map_or("..", |time| time.split('T').next().unwrap_or(time)).to_owned();
        let word = |text: Option<&str>| text.unwrap_or_default().to_owned();
        vec![self.id().to_owned(), day(from), day(to), word(self.license()), word(self.title())]
    }
}

impl fmt::Display for Collection {
    /// Writes a table: a line for each of the main fields that the back-end gave, and for each
    /// dimension.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["collection", self.id()]);
        let (from, to) = self.interval();
        let time =
            (from.is_some() || to.is_some()).then(|| format!("{} to {}", from.unwrap_or(".."), to.unwrap_or("..")));
        let extent = self.extent().map(|edges| edges.map(|edge| edge.to_string()).join(", "));
        let bands = Some(self.bands().join(", ")).filter(|bands| !bands.is_empty());
        let words = [
            ("title", self.title()),
            ("license", self.license()),
            ("time", time.as_deref()),
            ("extent", extent.as_deref()),
            ("bands", bands.as_deref()),
            ("description", self.description()),
        ];
        for (name, value) in words.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            table.row(&[name, value]);
        }
        for (name, kind) in self.dimensions() {
            table.row(&[&format!("dimension: {name}"), kind]);
        }
        table.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bands_are_found_where_back_ends_have_them() {
        let bands = |document: Value| Collection::new(document).bands().join(" ");
        assert_eq!(
            bands(json!({"cube:dimensions": {"b": {"type": "bands", "values": ["B04", "B08"]}, "t": 7}})),
            "B04 B08"
        );
        assert_eq!(bands(json!({"summaries": {"eo:bands": [{"name": "VV"}, {}, 3]}})), "VV");
        assert_eq!(bands(json!({"summaries": {"eo:bands": [], "bands": [{"name": "red"}]}})), "red");
        assert_eq!(bands(json!({"summaries": {}, "bands": [{"name": "B02"}, {"name": "B03"}]})), "B02 B03");
        let assets =
            json!({"a": {"bands": [{"name": "B02"}]}, "b": {"eo:bands": [{"name": "B02"}, {"name": "SCL"}]}, "c": 7});
        assert_eq!(bands(json!({"item_assets": assets})), "B02 SCL");
        assert_eq!(bands(json!({"summaries": null, "cube:dimensions": []})), "");
    }

    /// openeo-python-client 791.
    #[test]
    fn variables_of_a_cube_are_its_bands_if_no_dimension_has_them() {
        let variables = json!({
            "B02": {"type": "data", "dimensions": ["t", "y", "x"]},
            "SCL": {"dimensions": ["t", "y", "x"]},
            "spatial_ref": {"type": "auxiliary", "dimensions": []},
            "odd": 7,
        });
        let of = |mut document: Value| {
            document["cube:variables"] = variables.clone();
            Collection::new(document).bands().join(" ")
        };
        let cube = json!({"x": {"type": "spatial", "axis": "x"}, "t": {"type": "temporal"}});
        assert_eq!(of(json!({"cube:dimensions": cube})), "B02 SCL odd");
        assert_eq!(
            of(json!({"cube:dimensions": cube, "item_assets": {"a": {"bands": [{"name": "B04"}]}}})),
            "B02 SCL odd"
        );
        assert_eq!(of(json!({"cube:dimensions": {"bands": {"type": "bands", "values": ["B08"]}}})), "B08");
        assert_eq!(of(json!({"summaries": {"eo:bands": [{"name": "VV"}]}})), "VV");
    }

    #[test]
    fn an_extent_may_have_a_height_or_an_open_end() {
        let of = |bbox: Value, interval: Value| {
            Collection::new(json!({"extent": {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [interval]}}}))
        };
        let flat = of(json!([-180, -90, 180, 90]), json!(["2015-07-06T00:00:00Z", null]));
        assert_eq!(flat.extent(), Some([-180.0, -90.0, 180.0, 90.0]));
        assert_eq!(flat.interval(), (Some("2015-07-06T00:00:00Z"), None));
        assert_eq!(of(json!([1, 2, 0, 3, 4, 9]), json!([])).extent(), Some([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(of(json!([1, 2, null, 4]), json!(7)).extent(), None);
    }
}
