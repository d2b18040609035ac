//! Where a database may lie. A write-ahead log needs memory that all processes share, which no
//! network file system has.

use std::path::{Path, PathBuf};

use super::super::error::{Result, TaskError};

/// Kinds of file systems, as Linux names them, that reach over a network or out of a virtual
/// machine.
const REMOTE: &[&str] = &[
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.goofys",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb2",
    "smb3",
    "smbfs",
];

/// The path with its folder resolved, if a database may lie there.
///
/// On Linux the table of mounts is asked, on Windows the path; elsewhere a remote folder is not
/// recognised.
pub(super) fn checked(path: &Path) -> Result<PathBuf> {
    // Not repeated: it may hold a password.
    if path.to_str().is_some_and(|path| ["postgres://", "postgresql://"].iter().any(|scheme| path.starts_with(scheme)))
    {
        return Err(TaskError::Invalid(
            "a server's address is not a file's: use `connect`, of the feature `postgres`".into(),
        ));
    }
    if path.file_name().is_none() || path.as_os_str() == ":memory:" {
        return Err(TaskError::Invalid(format!("`{}` does not name a file: durable tasks need one", path.display())));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|error| TaskError::Database {
        doing: "looking for the database's folder",
        source: format!("`{}`: {error}", folder.display()).into(),
    })?;
    let path = folder.join(path.file_name().unwrap_or_default());
    // A link to a file elsewhere lies where that lies.
    let path = path.canonicalize().unwrap_or(path);
    let folder = path.parent().unwrap_or(&folder);
    let share = folder.to_string_lossy();
    if share.starts_with("//")
        || share.starts_with(r"\\") && !share.starts_with(r"\\?\")
        || share.starts_with(r"\\?\UNC")
    {
        return Err(TaskError::NetworkFileSystem { path, kind: "a share".into() });
    }
    // Without the table nothing is known, and a local disk is the likelier.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mounted_as(&mounts, folder).filter(|kind| REMOTE.contains(kind)) {
        Some(kind) => Err(TaskError::NetworkFileSystem { kind: kind.to_owned(), path: path.clone() }),
        None => Ok(path),
    }
}

/// The kind of file system that `folder` lies on: of all mounts at or above it the lowest, and of
/// those the last.
///
/// Source: proc(5), `/proc/pid/mountinfo`.
fn mounted_as<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mut found: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((place, kind)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (place.split(' ').nth(4), kind.split(' ').next()) else {
            continue;
        };
        let point = unescaped(point);
        let depth = Path::new(&point).components().count();
        if folder.starts_with(&point) && found.is_none_or(|(deepest, _)| depth >= deepest) {
            found = Some((depth, kind));
        }
    }
    found.map(|(_, kind)| kind)
}

/// Blanks, tabs, line ends and backslashes stand there as three octal digits.
fn unescaped(point: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")]
        .iter()
        .fold(point.to_owned(), |point, (escape, plain)| point.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 0:31 / /mnt/data rw - nfs4 server:/export rw
37 36 0:32 / /mnt/data/local\\040disk rw - xfs /dev/vdb rw
38 22 0:33 / /mnt/late rw - ext4 /dev/vdc rw
39 22 0:34 / /mnt/late rw - fuse.sshfs host: rw
a line that makes no sense
";

    #[test]
    fn the_lowest_mount_counts_and_of_two_the_last() {
        let kind = |folder: &str| mounted_as(MOUNTS, Path::new(folder));
        assert_eq!(kind("/home/me"), Some("ext4"));
        assert_eq!(kind("/mnt/data/x"), Some("nfs4"));
        assert_eq!(kind("/mnt/database"), Some("ext4"), "a name that only begins like a mount's");
        assert_eq!(kind("/mnt/data/local disk/x"), Some("xfs"));
        assert_eq!(kind("/mnt/late"), Some("fuse.sshfs"));
        assert_eq!(mounted_as("", Path::new("/")), None);
    }

    #[test]
    fn memory_and_folders_are_refused() {
        for path in [":memory:", "/", "..", "//server/share/queue.db"] {
            assert!(checked(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_servers_address_is_refused_and_its_password_not_repeated() {
        for address in ["postgres://me:secret@host/jobs", "postgresql://me:secret@host"] {
            let error = checked(Path::new(address)).expect_err("no file");
            assert!(matches!(error, TaskError::Invalid(_)), "{error:?}");
            assert!(error.to_string().contains("`connect`") && !format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
