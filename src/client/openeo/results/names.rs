//! Safe names for files and folders, from the names that a back-end gives. Pure.

use std::collections::HashSet;

use url::Url;

use crate::client::http::{check_file_name, sound_name};

/// The file for a job's metadata.
pub(crate) const METADATA: &str = "job-results.json";

/// The file for the details of the job with this id.
pub(crate) fn details(job: &str) -> String {
    format!("job_{}.json", sound_name(job))
}

/// The longest key that is kept as a file's name, in bytes.
const LONGEST: usize = 120;

/// Makes file names for assets, in order, from the local path or otherwise the key, the link and
/// the media type of each. They are safe, no two are the same, capitals or not, and none is that of
/// the metadata or of the job's details.
pub(crate) fn file_names<'a>(
    job: &str,
    assets: impl Iterator<Item = (&'a str, &'a str, Option<&'a str>)>,
) -> Vec<String> {
    let mut taken = HashSet::from([METADATA.to_owned(), details(job).to_lowercase()]);
    assets
        .map(|(key, href, media_type)| {
            let wanted = file_name(key, href, media_type);
            let name = (1..).map(|number| numbered(&wanted, number)).find(|name| !taken.contains(&name.to_lowercase()));
            let name = name.unwrap_or(wanted);
            taken.insert(name.to_lowercase());
            name
        })
        .collect()
}

/// The key, if it looks like a file's name. Otherwise its safe characters, with the ending of the
/// link or of the media type.
fn file_name(key: &str, href: &str, media_type: Option<&str>) -> String {
    if ending(key).is_some() && key.len() <= LONGEST && check_file_name(key).is_ok() {
        return key.to_owned();
    }
    let stem = sound_name(key);
    if ending(&stem).is_some() {
        return stem;
    }
    let of_href = Url::parse(href).ok().and_then(|url| ending(url.path()).map(str::to_owned));
    // A link may end in `.php`: if its ending isn't one of data, use that of the media type.
    let is_data = |ending: &String| {
        let ending = ending.to_ascii_lowercase();
        matches!(ending.as_str(), "tiff" | "jpeg") || MEDIA_TYPES.iter().any(|(_, known)| *known == ending)
    };
    let of_type = || media_type.and_then(of_media_type).map(str::to_owned);
    match of_href.clone().filter(is_data).or_else(of_type).or(of_href) {
        Some(ending) => format!("{stem}.{ending}"),
        None => stem,
    }
}

fn numbered(name: &str, number: usize) -> String {
    match (number, name.rsplit_once('.')) {
        (1, _) => name.to_owned(),
        (_, Some((stem, ending))) if !stem.is_empty() => format!("{stem}-{number}.{ending}"),
        _ => format!("{name}-{number}"),
    }
}

/// The ending of the last part of a path, without its full stop, if it looks like that of a file.
fn ending(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let (stem, ending) = name.rsplit_once('.')?;
    let sound =
        !stem.is_empty() && (1..=10).contains(&ending.len()) && ending.bytes().all(|b| b.is_ascii_alphanumeric());
    sound.then_some(ending)
}

fn of_media_type(media_type: &str) -> Option<&'static str> {
    let kind = media_type.split(';').next()?.trim().to_ascii_lowercase();
    let known = MEDIA_TYPES.iter().find(|(known, _)| *known == kind).map(|(_, ending)| *ending);
    // The suffix of a media type names its format. (RFC 6839)
    let of_suffix = || match kind.rsplit_once('+')?.1 {
        "json" => Some("json"),
        "xml" => Some("xml"),
        "zip" => Some("zip"),
        "gzip" => Some("gz"),
        "sqlite3" => Some("sqlite"),
        _ => None,
    };
    known.or_else(of_suffix)
}

/// Media types of results, and their usual file endings.
const MEDIA_TYPES: &[(&str, &str)] = &[
    ("image/tiff", "tif"),
    ("image/vnd.stac.geotiff", "tif"),
    ("image/geotiff", "tif"),
    ("image/png", "png"),
    ("image/jpeg", "jpg"),
    ("image/jpg", "jpg"),
    ("image/jp2", "jp2"),
    ("image/webp", "webp"),
    ("image/gif", "gif"),
    ("image/svg+xml", "svg"),
    ("application/json", "json"),
    ("application/geo+json", "geojson"),
    ("application/vnd.geo+json", "geojson"),
    ("application/geo+json-seq", "geojsonl"),
    ("application/x-ndjson", "ndjson"),
    ("application/netcdf", "nc"),
    ("application/x-netcdf", "nc"),
    ("application/x-netcdf4", "nc"),
    ("application/x-hdf5", "h5"),
    ("application/x-hdf", "h5"),
    ("application/grib", "grib"),
    ("application/wmo-grib2", "grib2"),
    ("application/xml", "xml"),
    ("text/xml", "xml"),
    ("application/gml+xml", "gml"),
    ("application/vnd.google-earth.kml+xml", "kml"),
    ("application/vnd.google-earth.kmz", "kmz"),
    ("application/zip", "zip"),
    ("application/zip+zarr", "zip"),
    ("application/x-zip-compressed", "zip"),
    ("application/gzip", "gz"),
    ("application/x-tar", "tar"),
    ("application/pdf", "pdf"),
    ("application/parquet", "parquet"),
    ("application/x-parquet", "parquet"),
    ("application/vnd.apache.parquet", "parquet"),
    ("application/vnd.apache.arrow.file", "arrow"),
    ("application/geopackage+sqlite3", "gpkg"),
    ("application/x-sqlite3", "sqlite"),
    ("application/vnd.flatgeobuf", "fgb"),
    ("application/flatgeobuf", "fgb"),
    ("application/vnd.las", "las"),
    ("application/vnd.laszip", "laz"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ("application/yaml", "yaml"),
    ("text/csv", "csv"),
    ("text/tab-separated-values", "tsv"),
    ("text/html", "html"),
    ("text/markdown", "md"),
    ("text/plain", "txt"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(assets: &[(&str, &str, Option<&str>)]) -> Vec<String> {
        let names = file_names("J1", assets.iter().copied());
        for name in &names {
            check_file_name(name).expect("sound");
        }
        names
    }

    #[test]
    fn a_key_that_is_a_file_name_is_kept() {
        assert_eq!(names(&[("res001.tiff", "", None), ("a b (1).csv", "", None)]), ["res001.tiff", "a b (1).csv"]);
    }

    #[test]
    fn no_key_leads_out_of_its_folder() {
        let hostile = [
            "../../etc/x",
            "/etc/passwd",
            "C:\\x.txt",
            "..",
            "",
            "con",
            "a\0b",
            "x.part",
            "a/../../b.tif",
            "\u{202e}gpj.exe",
        ];
        let assets: Vec<_> = hostile.iter().map(|key| (*key, "http://h.org/d/1", None)).collect();
        for name in names(&assets) {
            assert!(!name.contains(['/', '\\', ':', '\0']), "{name:?}");
        }
        assert_eq!(names(&[("../../etc/x", "http://h.org/a.tif?sig=b.csv", None)]), ["etc_x.tif"]);
    }

    #[test]
    fn an_ending_is_found_where_there_is_one() {
        let tiff = Some("image/tiff; application=geotiff");
        assert_eq!(names(&[("band 4", "http://h.org/download/77", tiff)]), ["band_4.tif"]);
        assert_eq!(names(&[("data", "http://h.org/x/out.nc", tiff)]), ["data.nc"]);
        assert_eq!(names(&[("data", "nonsense", Some("x/y"))]), ["data"]);
        assert_eq!(names(&[("data", "http://h.org/get.php?file=1", tiff)]), ["data.tif"]);
        assert_eq!(names(&[("data", "http://h.org/get.php", Some("x/y"))]), ["data.php"]);
        let of_type = |kind| names(&[("data", "http://h.org/1", Some(kind))]).remove(0);
        for (kind, name) in [
            ("Application/GeoPackage+SQLite3", "data.gpkg"),
            ("application/geo+json; charset=utf-8", "data.geojson"),
            ("application/vnd.anything+json", "data.json"),
            ("application/octet-stream", "data"),
            ("+", "data"),
            ("", "data"),
        ] {
            assert_eq!(of_type(kind), name, "{kind}");
        }
    }

    #[test]
    fn a_local_path_becomes_one_name() {
        let paths = ["a/B04.tif", "b/B04.tif", "./B04.tif", "/data/x", "../../B04.tif", "a\\B04.tif", "C:/B04.tif"];
        let assets: Vec<_> = paths.iter().map(|path| (*path, "http://h.org/1.tif", None)).collect();
        let expected = ["a_B04.tif", "b_B04.tif", "B04.tif", "data_x.tif", "B04-2.tif", "a_B04-2.tif", "C_B04.tif"];
        assert_eq!(names(&assets), expected);
    }

    #[test]
    fn no_two_files_have_one_name() {
        let same = [("a.tif", "", None), ("A.TIF", "", None), ("a.tif", "", None), ("job-results.json", "", None)];
        assert_eq!(names(&same), ["a.tif", "A-2.TIF", "a-3.tif", "job-results-2.json"]);
        assert_eq!(names(&[("job_j1.json", "", None), ("job_J2.json", "", None)]), ["job_j1-2.json", "job_J2.json"]);
    }

    #[test]
    fn long_names_are_cut() {
        let long = "ä".repeat(500);
        assert!(names(&[(&long, "", None)])[0].len() <= LONGEST);
    }
}
