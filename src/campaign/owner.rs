//! Which processes are at work on a campaign. Each holds a lock on a file of its own, which the
//! operating system lets go of when the process ends, however it ends: so what a killed process
//! held is free at once, and no clock decides it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;

/// This process's part in a campaign, until it is dropped.
pub(super) struct Owner {
    name: String,
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl Owner {
    /// Takes part under a name that no other process has.
    pub(super) fn new(campaign: &Path, name: String) -> io::Result<Owner> {
        let path = file_of(campaign, &name);
        let file = File::create_new(&path)?;
        FileExt::try_lock_exclusive(&file)?;
        Ok(Owner { name, path, _file: file })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // What stays behind, the next process to look at it removes.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process of that name is at work. When in doubt it is: then its rows are left alone.
pub(super) fn is_alive(campaign: &Path, name: &str) -> bool {
    let path = file_of(campaign, name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    // A shared lock: two threads that look at once take each other for no owner.
    let is_dead = matches!(FileExt::try_lock_shared(&file), Ok(true));
    if is_dead {
        let _ = fs::remove_file(&path);
    }
    !is_dead
}

fn file_of(campaign: &Path, name: &str) -> PathBuf {
    let mut path = campaign.as_os_str().to_owned();
    path.push(format!(".{name}.lock"));
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_alive_until_it_is_dropped() {
        let folder = std::env::temp_dir().join(format!("fulmar-owner-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let campaign = folder.join("c.db");
        let owner = Owner::new(&campaign, "a".to_owned()).expect("an owner");
        let name = owner.name().to_owned();
        assert!(is_alive(&campaign, &name));
        drop(owner);
        assert!(!is_alive(&campaign, &name));
        // As a killed process leaves it: the file is there, and the lock is not. Another thread
        // looks just now.
        fs::write(file_of(&campaign, &name), "").expect("a file");
        let looks = File::open(file_of(&campaign, &name)).expect("the file");
        assert!(FileExt::try_lock_shared(&looks).expect("a lock that is free"));
        assert!(!is_alive(&campaign, &name));
        assert!(!file_of(&campaign, &name).exists());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
