//! One file of a job's results.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::iter;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checksum::Checksum;
use super::metadata::{Metadata, MetadataCache};
use super::names::file_names;
use crate::batch::Context;
use crate::client::http::{Download, Downloaded, Existing, HttpErrorKind, Method, Response, json};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::{number_of, plain};
use crate::trace::event;

/// How many assets are named in an error.
const NAMED: usize = 20;

/// One file of a job's results: its metadata, and methods to download or load it.
#[derive(Clone)]
pub struct ResultAsset {
    cache: MetadataCache,
    generation: u64,
    key: String,
    href: String,
    /// What is wrong with its link, if it can't be downloaded because of that.
    fault: Option<String>,
    document: Value,
    file_name: String,
}

/// Where to download an asset to.
pub(crate) struct Target {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) existing: Existing,
    pub(super) verify: bool,
    pub(super) max_bytes: u64,
}

impl ResultAsset {
    /// A handle to the same asset that tries each request once and waits only for the network.
    pub(super) fn once(&self) -> ResultAsset {
        ResultAsset { cache: self.cache.once(), ..self.clone() }
    }

    /// Its key in the results. A back-end may write anything there.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its URL. The link may be signed, and then it expires. A link that this client can't follow,
    /// such as `s3://..`, is returned as the back-end wrote it. Downloading such an asset is an
    /// error, and doesn't affect the others.
    pub fn href(&self) -> &str {
        &self.href
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Value {
        &self.document
    }

    /// Its media type: `image/tiff; application=geotiff`.
    pub fn media_type(&self) -> Option<&str> {
        self.document.get("type").and_then(Value::as_str)
    }

    /// Its size in bytes, if the metadata say (`file:size`).
    pub fn size(&self) -> Option<u64> {
        let size = number_of(self.document.get("file:size")).filter(|size| *size >= 0.0 && size.fract() == 0.0)?;
        self.document.get("file:size")?.as_u64().or_else(|| format!("{size:.0}").parse().ok())
    }

    /// The name of its file on the disk: from the metadata's `file:local_path`, with folders as a
    /// part of the name, or otherwise from the key. Unsafe characters are replaced.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The text from which its file name is made.
    fn named(&self) -> &str {
        let path = self.document.get("file:local_path").and_then(Value::as_str);
        path.filter(|path| !path.trim().is_empty()).unwrap_or(&self.key)
    }

    /// Downloads it to `target`: a file, or an existing folder. It replaces a file of that name
    /// when the download is complete and has the size and checksum of the metadata. If the checksum
    /// isn't SHA-2, it isn't checked, and a warning is logged.
    ///
    /// # Errors
    /// The back-end's error, or that of writing the file. A later call resumes a download that
    /// broke off.
    pub fn download(&self, target: impl AsRef<Path>) -> Result<PathBuf, OpenEoError> {
        let target = target.as_ref();
        let (folder, name) = if target.is_dir() {
            (target.to_owned(), self.file_name.clone())
        } else {
            let name = target.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                OpenEoError::Invalid(format!("{} isn't a path of a file, in UTF-8", target.display()))
            })?;
            (target.parent().unwrap_or(Path::new("")).to_owned(), name.to_owned())
        };
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let target = Target { folder, name, existing: Existing::Replace, verify: true, max_bytes: u64::MAX };
        Ok(self.renewed_if_expired(|asset| asset.get_file(&target, None))?.path)
    }

    /// Reads the whole asset into memory, up to the limit of the connection's HTTP client, and
    /// checks it as a download.
    ///
    /// # Errors
    /// The back-end's error; [`OpenEoError::Asset`] if size or checksum aren't those of the
    /// metadata.
    pub fn load_bytes(&self) -> Result<Vec<u8>, OpenEoError> {
        let reply = self.renewed_if_expired(ResultAsset::get)?;
        // The size and checksum of the metadata may be those of the compressed file or of its
        // content.
        let forms = [reply.bytes(), reply.stored_bytes()];
        if self.size().is_some_and(|size| !forms.iter().any(|form| form.len() as u64 == size)) {
            return Err(self.wrong(&format!("has {} bytes, not those of its metadata", reply.bytes().len())));
        }
        if self.checksum().is_some_and(|checksum| !forms.iter().any(|form| checksum.is_of(form))) {
            return Err(self.wrong("has another checksum than its metadata say"));
        }
        Ok(reply.into_bytes())
    }

    /// The asset as JSON.
    ///
    /// # Errors
    /// The errors of [`load_bytes`](ResultAsset::load_bytes), and one if the asset isn't JSON.
    pub fn load_json(&self) -> Result<Value, OpenEoError> {
        json::from_slice(&self.load_bytes()?).map_err(|_| self.wrong("isn't JSON"))
    }

    /// For a step of a batch: downloads the asset once, and once more if the link has expired,
    /// without a wait.
    pub(crate) fn fetch(&self, target: &Target, cx: &mut Context<'_>) -> Result<Downloaded, OpenEoError> {
        if target.verify && self.has_unknown_checksum() {
            let key = plain(&self.key, 100);
            cx.note(format!(
                "the checksum of asset {key:?} is of a kind that isn't computed here: only its size was looked at"
            ));
        }
        let cx = RefCell::new(cx);
        let file = self.renewed_if_expired(|asset| asset.get_file(target, Some(&cx)))?;
        if !file.length_known && !file.kept {
            let key = plain(&self.key, 100);
            let what = "neither the server nor the metadata say how long it is, so one that was cut would look whole";
            cx.borrow_mut().note(format!("asset {key:?}: {what}"));
        }
        Ok(file)
    }

    /// Downloads the asset to `target` by its present link. If `target.verify`, its size and
    /// checksum must be those of the metadata. With `cx`, the batch sees the progress, and a cancel
    /// of the batch ends the download.
    fn get_file(&self, target: &Target, cx: Option<&RefCell<&mut Context<'_>>>) -> Result<Downloaded, OpenEoError> {
        let mut download =
            Download::new(&target.folder, &target.name).existing(target.existing).max_bytes(target.max_bytes);
        let checksum = self.checksum().filter(|_| target.verify);
        if let Some(size) = self.size().filter(|_| target.verify) {
            download = download.length(size);
        }
        download = match checksum {
            Some(Checksum::Sha224(sum)) => download.sha224(sum),
            Some(Checksum::Sha256(sum)) => download.sha256(sum),
            Some(Checksum::Sha384(sum)) => download.sha384(sum),
            Some(Checksum::Sha512(sum)) => download.sha512(sum),
            None => download,
        };
        // By default a page of HTML is refused, because it mostly asks for a login.
        if self.media_type().is_some_and(|kind| kind.to_ascii_lowercase().contains("html")) {
            download = download.accept_types(&["text/html", "application/xhtml+xml", "*"]);
        }
        if let Some(cx) = cx {
            download = download.progress(|done, total| cx.borrow_mut().bytes(done, total));
            download = download.cancelled(|| cx.borrow().is_cancelled());
        }
        Ok(self.cache.job().connection().request_file(&self.href).download(&download)?)
    }

    fn get(&self) -> Result<Response, OpenEoError> {
        let connection = self.cache.job().connection();
        connection.send(connection.request_link(Method::Get, &self.href))
    }

    /// Calls `each` with this asset, and if the link has expired, once more with a new link.
    fn renewed_if_expired<T>(&self, each: impl Fn(&ResultAsset) -> Result<T, OpenEoError>) -> Result<T, OpenEoError> {
        if let Some(fault) = &self.fault {
            return Err(self.wrong(fault));
        }
        let error = match each(self) {
            Err(error) if self.may_have_expired(&error) => error,
            outcome => return outcome,
        };
        event!(DEBUG, "a link to an asset may have expired", asset = self.key, error = error.to_string());
        let renewed = self.cache.newer(self.generation).and_then(|new| asset_of(&self.cache, &new, &self.key))?;
        // Trying the same link again is useless, unless the back-end says that it has expired: then
        // it may have renewed what is behind the link.
        if renewed.href == self.href && error.code() != Some("ResultLinkExpired") {
            return Err(error);
        }
        each(&renewed)
    }

    /// Whether an error may mean that the link has expired. Back-ends answer 410 and
    /// `ResultLinkExpired`; file stores answer 403 to an expired signature, and some 401, 404 or
    /// 400.
    fn may_have_expired(&self, error: &OpenEoError) -> bool {
        let status = match error.http().map(|http| http.kind()) {
            Some(HttpErrorKind::Status(status)) => status,
            _ => return false,
        };
        let is_signed = self.href.contains('?') || !self.cache.job().connection().is_ours(&self.href);
        error.code() == Some("ResultLinkExpired")
            || status == 410
            || (is_signed && matches!(status, 400 | 401 | 403 | 404))
    }

    fn checksum(&self) -> Option<Checksum> {
        let checksum = Checksum::of(self.document.get("file:checksum")?.as_str()?);
        if checksum.is_none() {
            event!(WARN, "a checksum is of a kind that isn't computed here, and not looked at", asset = self.key);
        }
        checksum
    }

    /// Whether the asset has a checksum of a kind that we can't compute.
    fn has_unknown_checksum(&self) -> bool {
        let checksum = self.document.get("file:checksum").filter(|checksum| !checksum.is_null());
        checksum.is_some_and(|checksum| checksum.as_str().and_then(Checksum::of).is_none())
    }

    fn wrong(&self, what: &str) -> OpenEoError {
        self.cache.wrong(format!("asset {:?} {what}", plain(&self.key, 100)))
    }
}

impl fmt::Debug for ResultAsset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the link, which may be signed.
        f.debug_struct("ResultAsset").field("key", &self.key).field("type", &self.media_type()).finish_non_exhaustive()
    }
}

/// The asset with this key. The error names the keys that exist.
pub(super) fn asset_of(cache: &MetadataCache, metadata: &Metadata, key: &str) -> Result<ResultAsset, OpenEoError> {
    let assets = assets(cache, metadata);
    let named = named(assets.iter().map(ResultAsset::key));
    let found = assets.into_iter().find(|asset| asset.key() == key);
    found.ok_or_else(|| cache.wrong(format!("there is no asset {:?}, but: {named}", plain(key, 100))))
}

/// All assets: those of the results, then those of the items, each in the order of their keys. If
/// several items have the same key, the item's id becomes a part of it.
pub(super) fn assets(cache: &MetadataCache, metadata: &Metadata) -> Vec<ResultAsset> {
    let connection = cache.job().connection();
    let mut found: Vec<ResultAsset> = Vec::new();
    let (mut keys, mut links) = (HashSet::new(), HashSet::new());
    for part in iter::once(&*metadata.results).chain(&*metadata.items) {
        for (key, document) in part.assets() {
            let (href, fault) = match link_of(document, |href| connection.resolve_from(&part.url, href)) {
                Ok(href) => (href, None),
                Err((href, fault)) => (href, Some(fault)),
            };
            // Skip an asset of an item that the collection has, too.
            if fault.is_none() && !links.insert(href.clone()) && keys.contains(key) {
                continue;
            }
            let of_item = part.document.get("id").and_then(Value::as_str).unwrap_or_default();
            let wanted = iter::once(key.clone()).chain((1..).map(|number| match number {
                1 => format!("{of_item}/{key}"),
                number => format!("{of_item}/{key}-{number}"),
            }));
            let Some(key) = wanted.into_iter().find(|key| keys.insert(key.clone())) else { continue };
            let (cache, generation, document) = (cache.clone(), metadata.generation, document.clone());
            found.push(ResultAsset { cache, generation, key, href, fault, document, file_name: String::new() });
        }
    }
    let described = found.iter().map(|asset| (asset.named(), asset.href(), asset.media_type()));
    let names = file_names(cache.job().id(), described);
    for (asset, name) in found.iter_mut().zip(names) {
        asset.file_name = name;
    }
    found
}

/// The URL of an asset; the error is the link as it was written, and what is wrong with it. If the
/// link can't be followed, it tries the alternate ones. (STAC alternate assets extension 1.2)
fn link_of(document: &Value, resolve: impl Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let text = |object: &Value| object.get("href").and_then(Value::as_str).map(str::to_owned);
    let href = text(document);
    if let Some(url) = href.as_deref().and_then(&resolve) {
        return Ok(url);
    }
    let alternates = document.get("alternate").and_then(Value::as_object).into_iter().flatten();
    if let Some(url) = alternates.filter_map(|(_, alternate)| resolve(&text(alternate)?)).next() {
        return Ok(url);
    }
    Err(match href {
        None => (String::new(), "has no link".to_owned()),
        Some(href) => {
            let scheme = href.split_once("://").map_or("", |(scheme, _)| scheme);
            let fault = if scheme.is_empty() {
                "has a link that makes no sense".to_owned()
            } else {
                format!(
                    "has a link to {}://, which isn't spoken here: get it with the store's own tool",
                    plain(scheme, 20)
                )
            };
            (href, fault)
        }
    })
}

/// The first keys, as a text for an error.
pub(super) fn named<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut keys: Vec<String> = keys.take(NAMED + 1).map(|key| plain(key, 100)).collect();
    if keys.len() > NAMED {
        keys[NAMED] = "..".to_owned();
    }
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}
