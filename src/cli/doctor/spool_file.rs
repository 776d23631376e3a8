//! The files in the spool's directory, judged for the daemon's user.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::judged_user::JudgedUser;
use crate::platform::{Access, Platform};
use crate::spool::FILE_NAME;

/// What a new spool takes at least.
const MIN_ROOM_BYTES: usize = 1 << 20;

/// Returns what is wrong with the files that exist.
pub(super) fn finding(key: &str, directory: &Path, user: &JudgedUser) -> Option<Finding> {
    let file = directory.join(FILE_NAME);
    if let Some(found) = obstacle(&file, false) {
        return Some(Finding::missing(
            key,
            found,
            format!("move it away, for example: sudo mv {0} {0}.old", file.display()),
        ));
    }
    let is_usable = |file: &PathBuf| {
        if user.is_caller() {
            return std::fs::File::options().read(true).write(true).open(file).is_ok();
        }
        user.check(file, Access::Read).and_then(|()| user.check(file, Access::Write)).is_ok()
    };
    let mut unusable = crate::spool::files(directory);
    unusable.retain(|file| !is_usable(file));
    let owner = Platform::default().owner_name(unusable.first()?).unwrap_or_default();
    let unusable: Vec<_> = unusable.iter().map(|file| file.display().to_string()).collect();
    let verb = if unusable.len() == 1 { "belongs" } else { "belong" };
    let files = unusable.join(" ");
    Some(Finding::missing(
        key,
        format!(
            "{} cannot read and write {}, which {verb} to the user {owner}",
            user.name(),
            unusable.join(", ")
        ),
        format!("sudo chown {0} {files} && sudo chmod u+rw {files}", user.argument()),
    ))
}

/// Returns what stands where a directory or a file belongs, if it is something else.
pub(super) fn obstacle(path: &Path, is_directory: bool) -> Option<String> {
    let own = path.symlink_metadata().ok()?;
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() == is_directory => None,
        Ok(_) if is_directory => Some(format!("{} is a file, and must be a directory", path.display())),
        Ok(_) => Some(format!("{} is a directory, and must be a file", path.display())),
        Err(error) if own.is_symlink() && error.kind() == std::io::ErrorKind::NotFound => {
            let target = std::fs::read_link(path).unwrap_or_default();
            Some(format!("{} is a link to {}, which does not exist", path.display(), target.display()))
        }
        Err(_) => None,
    }
}

/// Writes a file of some size into a directory, which is then removed.
pub(super) fn try_writing(directory: &Path) -> std::io::Result<()> {
    let mut file = tempfile::tempfile_in(directory)?;
    file.write_all(&vec![0; MIN_ROOM_BYTES])?;
    file.sync_data()
}
