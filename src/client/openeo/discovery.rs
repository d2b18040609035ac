//! Lists what a back-end offers: collections, processes, file formats, and runtimes for users'
//! code. This needs no login.
//!
//! Source: openEO API 1.2, "EO Data Discovery", "Process Discovery", "Capabilities".

use serde_json::Value;

use super::api::connection::Connection;
use super::api::error::OpenEoError;
use super::api::pages::Pages;
use super::documents::collection::Collection;
use super::documents::format::FileFormats;
use super::documents::listing::{Listed, Listing};
use super::documents::runtime::UdfRuntimes;
use super::documents::text::{plain, segment, segments};
use super::processes::process::Process;
use crate::client::http::{Method, Origin};

impl Connection {
    /// All collections of data, with their basic details, from all pages of the list.
    ///
    /// # Errors
    /// The back-end's error, or [`OpenEoError::Reply`] if the reply isn't such a list.
    pub fn list_collections(&self) -> Result<Listing<Collection>, OpenEoError> {
        self.listing("/collections", "collections")
    }

    /// All details of a collection, such as its dimensions, bands and terms of use.
    ///
    /// # Errors
    /// The back-end's; [`OpenEoError::is_not_found`] says that there is no such collection.
    pub fn describe_collection(&self, id: &str) -> Result<Collection, OpenEoError> {
        Ok(Collection::new(self.object(&format!("/collections/{}", segments(id)))?))
    }

    /// All processes of the back-end, or those of a `namespace`: `"backend"`, or a user's shared
    /// processes. Reads all pages of the list.
    ///
    /// # Errors
    /// The back-end's error, or [`OpenEoError::Reply`] if the reply isn't such a list.
    pub fn list_processes<'a>(&self, namespace: impl Into<Option<&'a str>>) -> Result<Listing<Process>, OpenEoError> {
        self.listing(&processes_of(namespace.into()), "processes")
    }

    /// One process of the back-end, or of a namespace. The namespace may also be a URL with the
    /// process's description. Credentials are sent to that URL only if it is below the API's root.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if there is no such process; otherwise the errors of
    /// [`list_processes`](Connection::list_processes).
    pub fn describe_process<'a>(
        &self,
        id: &str,
        namespace: impl Into<Option<&'a str>>,
    ) -> Result<Process, OpenEoError> {
        let namespace = namespace.into();
        let missing = || OpenEoError::Invalid(format!("there is no process `{}`", plain(id, 80)));
        if let Some(url) = namespace.filter(|namespace| Origin::of(namespace).is_some()) {
            let described = self.json_of(self.request_link(Method::Get, url).accept("application/json"))?;
            // One description, or a list of them. (openEO API, remote process definition extension)
            let listed = described.get("processes").and_then(Value::as_array).cloned();
            let listed = listed.unwrap_or_else(|| vec![described]);
            return Listing::<Process>::new(listed, None).find(id).cloned().ok_or_else(missing);
        }
        // Search the list: the API has a request for a single process only with namespaces, and not
        // all back-ends have that.
        let processes = self.list_processes(namespace)?;
        processes.find(id).cloned().ok_or_else(missing)
    }

    /// The formats of files that the back-end reads and writes.
    ///
    /// # Errors
    /// The back-end's error, or [`OpenEoError::Reply`] if the reply isn't an object.
    pub fn list_file_formats(&self) -> Result<FileFormats, OpenEoError> {
        self.object("/file_formats").map(FileFormats::new)
    }

    /// The runtimes for users' own code.
    ///
    /// # Errors
    /// The back-end's error, or [`OpenEoError::Reply`] if the reply isn't an object.
    pub fn list_udf_runtimes(&self) -> Result<UdfRuntimes, OpenEoError> {
        self.object("/udf_runtimes").map(UdfRuntimes::new)
    }

    pub(crate) fn listing<T: Listed>(&self, path: &str, field: &str) -> Result<Listing<T>, OpenEoError> {
        let pages = Pages::read(self, self.request(Method::Get, path), field)?;
        Ok(Listing::new(pages.items, pages.gap))
    }

    pub(crate) fn object(&self, path: &str) -> Result<Value, OpenEoError> {
        let document = self.json_of(self.request(Method::Get, path))?;
        if !document.is_object() {
            return Err(OpenEoError::reply(format!("{path} isn't an object")));
        }
        Ok(document)
    }
}

fn processes_of(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "/processes".to_owned(), |namespace| format!("/processes/{}", segment(namespace)))
}
