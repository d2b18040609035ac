//! An area between four edges, and its split into a grid of tiles.
//!
//! Source: `openeo` 0.53.0, `extra/job_management/_job_splitting.py`, `_split_bounding_box`, whose
//! tiles these are, bit for bit.

use serde_json::{Value, json};

use crate::client::openeo::api::error::OpenEoError;

/// The most tiles of a split: more are mostly due to a size in the wrong unit.
const MOST_TILES: u64 = 1_000_000;

/// An area between four edges, in degrees of WGS 84 unless [`crs`](BoundingBox::crs) says
/// otherwise.
///
/// ```
/// use fulmar::client::openeo::BoundingBox;
/// use serde_json::json;
///
/// let area = BoundingBox::new(3.0, 51.0, 4.0, 51.5);
/// let tiles = area.split_by_size(0.5)?;
/// assert_eq!(tiles, [BoundingBox::new(3.0, 51.0, 3.5, 51.5), BoundingBox::new(3.5, 51.0, 4.0, 51.5)]);
/// assert_eq!(tiles[0].to_json(), json!({"west": 3.0, "south": 51.0, "east": 3.5, "north": 51.5}));
/// # Ok::<(), fulmar::client::openeo::OpenEoError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BoundingBox {
    /// Its western edge.
    pub west: f64,
    /// Its southern edge.
    pub south: f64,
    /// Its eastern edge; less than `west`, or more than 180 degrees, if it crosses the
    /// antimeridian.
    pub east: f64,
    /// Its northern edge.
    pub north: f64,
    /// The coordinate system of the edges, as an EPSG code or WKT2 text; `None` is WGS 84.
    pub crs: Option<Value>,
}

impl BoundingBox {
    /// A box in degrees of WGS 84.
    pub fn new(west: f64, south: f64, east: f64, north: f64) -> BoundingBox {
        BoundingBox { west, south, east, north, crs: None }
    }

    /// The same numbers in another coordinate system: `.epsg(32631)` for metres of a UTM zone.
    #[must_use]
    pub fn epsg(mut self, code: u32) -> BoundingBox {
        self.crs = Some(json!(code));
        self
    }

    /// Reads `{"west": .., "south": .., "east": .., "north": .., "crs": ..}`, or the four numbers
    /// in that order.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] names the edge that is missing or isn't a number.
    pub fn from_json(document: &Value) -> Result<BoundingBox, OpenEoError> {
        let edge = |at: usize, name: &str| {
            let found = document.get(name).or_else(|| document.as_array().filter(|list| list.len() == 4)?.get(at));
            let found = found.and_then(Value::as_f64);
            found.ok_or_else(|| OpenEoError::Invalid(format!("the box has no number as `{name}`")))
        };
        let (west, south, east, north) = (edge(0, "west")?, edge(1, "south")?, edge(2, "east")?, edge(3, "north")?);
        let crs = document.get("crs").filter(|crs| !crs.is_null()).cloned();
        Ok(BoundingBox { crs, ..BoundingBox::new(west, south, east, north) })
    }

    /// The JSON that processes take as a `spatial_extent`.
    pub fn to_json(&self) -> Value {
        let mut document = json!({"west": self.west, "south": self.south, "east": self.east, "north": self.north});
        if let Some(crs) = &self.crs {
            document["crs"] = crs.clone();
        }
        document
    }

    /// Splits the area into tiles that are `size` wide and high, in the unit of the edges, from the
    /// south-western corner. Those at the northern and eastern edge may be smaller. The tiles come
    /// column by column from the west, each from the south.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if `size` isn't a positive number, if the box has no area or edges
    /// that aren't numbers, or if there would be more than a million tiles.
    pub fn split_by_size(&self, size: f64) -> Result<Vec<BoundingBox>, OpenEoError> {
        if !(size.is_finite() && size > 0.0) {
            return Err(OpenEoError::Invalid(format!("the size of tiles must be a positive number, and is {size}")));
        }
        let mut tiles = Vec::new();
        for part in self.parts()? {
            // Round first: a tiny error of rounding must not add another tile.
            let count = |length: f64| ((length / size * 1e10).round() / 1e10).ceil();
            let (columns, rows) = (count(part.east - part.west), count(part.north - part.south));
            check_count(columns * rows + tiles.len() as f64)?;
            let (columns, rows) = (columns as u32, rows as u32);
            for (column, row) in (0..columns).flat_map(|column| (0..rows).map(move |row| (column, row))) {
                let (column, row) = (f64::from(column), f64::from(row));
                tiles.push(BoundingBox {
                    west: part.west + column * size,
                    south: part.south + row * size,
                    east: (part.west + (column + 1.0) * size).min(part.east),
                    north: (part.south + (row + 1.0) * size).min(part.north),
                    crs: self.crs.clone(),
                });
            }
        }
        Ok(tiles)
    }

    /// Splits the area into `columns` times `rows` tiles of the same size. Neighbours share their
    /// edge to the last bit. The tiles come column by column from the west, each from the south.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if a count is 0, if the box has no area or edges that aren't
    /// numbers, if there would be more than a million tiles, or if the box crosses the
    /// antimeridian: it would be cut there first, and not into equal columns. Split its two parts
    /// instead.
    pub fn split_by_count(&self, columns: u32, rows: u32) -> Result<Vec<BoundingBox>, OpenEoError> {
        if columns == 0 || rows == 0 {
            return Err(OpenEoError::Invalid(
                "an area can't be split into 0 columns or rows: use 1 or more of each".to_owned(),
            ));
        }
        check_count(f64::from(columns) * f64::from(rows))?;
        let parts = self.parts()?;
        let [part] = parts.as_slice() else {
            return Err(OpenEoError::Invalid(
                "the box crosses the antimeridian: split what is west of it and what is east of it".to_owned(),
            ));
        };
        // Take the last edge from the box, because a computed one may differ by rounding.
        let edge = |from: f64, to: f64, at: u32, of: u32| {
            if at == of { to } else { from + (to - from) * f64::from(at) / f64::from(of) }
        };
        let tiles = (0..columns).flat_map(|column| (0..rows).map(move |row| (column, row)));
        let tile = |(column, row)| BoundingBox {
            west: edge(part.west, part.east, column, columns),
            south: edge(part.south, part.north, row, rows),
            east: edge(part.west, part.east, column + 1, columns),
            north: edge(part.south, part.north, row + 1, rows),
            crs: self.crs.clone(),
        };
        Ok(tiles.map(tile).collect())
    }

    /// The box itself, or its two parts if it crosses the antimeridian.
    fn parts(&self) -> Result<Vec<BoundingBox>, OpenEoError> {
        let invalid = |why: &str| Err(OpenEoError::Invalid(format!("the box can't be split: {why}")));
        if ![self.west, self.south, self.east, self.north].iter().all(|edge| edge.is_finite()) {
            return invalid("its edges must be finite numbers");
        }
        if self.south >= self.north {
            return invalid("its southern edge must be south of its northern one");
        }
        let is_degrees = self.crs.as_ref().is_none_or(|crs| {
            let code = crs.as_str().map(|text| text.trim().to_ascii_uppercase());
            crs.as_u64() == Some(4326) || code.is_some_and(|code| code.trim_start_matches("EPSG:") == "4326")
        });
        let is_usual = |edge: f64| (-180.0..=180.0).contains(&edge);
        if self.west < self.east && (!is_degrees || (is_usual(self.west) && is_usual(self.east))) {
            return Ok(vec![self.clone()]);
        }
        if !is_degrees || self.west == self.east || self.east - self.west >= 360.0 {
            return invalid("its western edge must be west of its eastern one");
        }
        // Bring the degrees into the range of a circle, but only if they aren't in it, because that
        // loses the last bits.
        let west = if (-180.0..180.0).contains(&self.west) {
            self.west
        } else {
            (self.west + 180.0).rem_euclid(360.0) - 180.0
        };
        let east = if is_usual(self.east) { self.east } else { 180.0 - (180.0 - self.east).rem_euclid(360.0) };
        let turned = BoundingBox { west, east, ..self.clone() };
        if west < east {
            return Ok(vec![turned]);
        }
        Ok(vec![BoundingBox { east: 180.0, ..turned.clone() }, BoundingBox { west: -180.0, ..turned }])
    }
}

fn check_count(tiles: f64) -> Result<(), OpenEoError> {
    // `<=` and not a negated `>`, so that NaN counts as too many.
    if tiles <= MOST_TILES as f64 {
        return Ok(());
    }
    Err(OpenEoError::Invalid(format!(
        "{tiles} tiles are more than {MOST_TILES}: use larger ones; their size is in the unit of the box's edges"
    )))
}

/// West, south, east, north, in degrees of WGS 84.
impl From<[f64; 4]> for BoundingBox {
    fn from([west, south, east, north]: [f64; 4]) -> BoundingBox {
        BoundingBox::new(west, south, east, north)
    }
}

impl From<BoundingBox> for Value {
    fn from(area: BoundingBox) -> Value {
        area.to_json()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_box_and_no_more() {
        let area = BoundingBox::new(-7.3, 50.0, 4.1, 52.5).epsg(4326);
        for tiles in [area.split_by_size(0.7).expect("tiles"), area.split_by_count(7, 3).expect("tiles")] {
            let covered: f64 = tiles.iter().map(|tile| (tile.east - tile.west) * (tile.north - tile.south)).sum();
            assert!((covered - 11.4 * 2.5).abs() < 1e-9, "{covered}");
            assert!(tiles.iter().all(|tile| tile.west < tile.east && tile.south < tile.north && tile.crs == area.crs));
            assert_eq!((tiles[0].west, tiles[0].south), (-7.3, 50.0));
            assert_eq!(tiles.last().map(|tile| (tile.east, tile.north)), Some((4.1, 52.5)));
        }
        assert_eq!(area.split_by_count(7, 3).expect("tiles").len(), 21);
        assert_eq!(BoundingBox::new(0.0, 0.0, 0.3, 0.3).split_by_size(0.1).expect("tiles").len(), 9, "0.3 / 0.1 is 3");
    }

    #[test]
    fn a_box_across_the_antimeridian_is_cut_there() {
        for (west, east) in [(179.0, -179.0), (179.0, 181.0), (-181.0, -179.0), (539.0, 541.0)] {
            let tiles = BoundingBox::new(west, 0.0, east, 1.0).split_by_size(1.0).expect("tiles");
            let halves = [BoundingBox::new(179.0, 0.0, 180.0, 1.0), BoundingBox::new(-180.0, 0.0, -179.0, 1.0)];
            assert_eq!(tiles, halves, "{west} to {east}");
        }
        assert_eq!(BoundingBox::new(190.0, 0.0, 191.0, 1.0).split_by_size(1.0).expect("tiles")[0].west, -170.0);
        let world = BoundingBox::new(-180.0, -90.0, 180.0, 90.0).split_by_size(90.0).expect("tiles");
        assert_eq!((world.len(), world[0].west, world[7].east), (8, -180.0, 180.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let area = BoundingBox::new(0.0, 0.0, 1.0, 1.0);
        for size in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9] {
            assert!(matches!(area.split_by_size(size), Err(OpenEoError::Invalid(_))), "{size}");
        }
        assert!(matches!(area.split_by_count(0, 1), Err(OpenEoError::Invalid(_))));
        assert!(matches!(area.split_by_count(u32::MAX, u32::MAX), Err(OpenEoError::Invalid(_))));
        for wrong in [
            BoundingBox::new(0.0, 1.0, 1.0, 1.0),
            BoundingBox::new(f64::NAN, 0.0, 1.0, 1.0),
            BoundingBox::new(1.0, 0.0, 1.0, 1.0),
            BoundingBox::new(500_000.0, 0.0, 400_000.0, 1.0).epsg(32631),
        ] {
            assert!(matches!(wrong.split_by_size(1.0), Err(OpenEoError::Invalid(_))), "{wrong:?}");
        }
        assert!(
            matches!(BoundingBox::from_json(&json!({"west": 1})), Err(OpenEoError::Invalid(text)) if text.contains("`south`"))
        );
    }
}
