//! Whether a user may read or write a file, judged by owners and mode bits, so that no other user's rights are needed.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::User;

/// What a user wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read a file, or list a directory.
    Read,
    /// Change a file, or create files in a directory.
    Write,
}

/// Why a user may not access a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    /// The file does not exist.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// This process may not look at the file.
    #[error("{0} is hidden from the user of this command")]
    Hidden(PathBuf),
    /// The user lacks a right.
    #[error("{path} belongs to the user {owner} and the group {group} with mode {mode:03o}")]
    Denied {
        /// The file, or a directory on the way to it.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
        /// The number of its group.
        group: u32,
        /// Its mode bits.
        mode: u32,
    },
}

const SEARCH: u32 = 0o1;
const WRITE: u32 = 0o2;
const READ: u32 = 0o4;

/// Checks that a user may access a file, and search all directories on the way to it.
pub(crate) fn check_access(user: &User, path: &Path, access: Access) -> Result<(), AccessError> {
    let wanted = match (access, path.is_dir()) {
        (Access::Read, false) => READ,
        (Access::Read, true) => READ | SEARCH,
        (Access::Write, false) => WRITE,
        (Access::Write, true) => WRITE | SEARCH,
    };
    check_ancestors(user, path)?;
    // Links may lead through other directories.
    let real = path.canonicalize().map_err(|error| io_error(path, &error))?;
    check_ancestors(user, &real)?;
    check_mode(user, &real, wanted)
}

fn check_ancestors(user: &User, path: &Path) -> Result<(), AccessError> {
    let mut ancestors: Vec<_> =
        path.ancestors().skip(1).filter(|ancestor| !ancestor.as_os_str().is_empty()).collect();
    ancestors.reverse();
    ancestors.into_iter().try_for_each(|ancestor| check_mode(user, ancestor, SEARCH))
}

fn io_error(path: &Path, error: &std::io::Error) -> AccessError {
    match error.kind() {
        ErrorKind::PermissionDenied => AccessError::Hidden(path.to_owned()),
        _ => AccessError::Missing(path.to_owned()),
    }
}

fn check_mode(user: &User, path: &Path, wanted: u32) -> Result<(), AccessError> {
    let metadata = path.metadata().map_err(|error| io_error(path, &error))?;
    let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    let shift = if owner == user.uid {
        6
    } else if user.gids.contains(&group) {
        3
    } else {
        0
    };
    if user.uid == 0 || mode >> shift & wanted == wanted {
        return Ok(());
    }
    Err(AccessError::Denied { path: path.to_owned(), owner, group, mode })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn owner_group_and_others_have_their_own_bits() {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o755);
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let metadata = file.metadata().unwrap();
        // These users differ from the one of the test, which may be root.
        let user = |uid: u32, gids: Vec<u32>| User { name: String::new(), uid, gids };
        let (member, other) = (user(4_000_001, vec![metadata.gid()]), user(4_000_002, vec![4_000_002]));
        for (mode, may_member, may_other) in [(0o644, true, true), (0o640, true, false), (0o604, false, true)]
        {
            set_mode(&file, mode);
            assert_eq!(check_access(&member, &file, Access::Read).is_ok(), may_member, "{mode:o}");
            assert_eq!(check_access(&other, &file, Access::Read).is_ok(), may_other, "{mode:o}");
        }
        assert!(check_access(&user(0, vec![0]), &file, Access::Read).is_ok());
        assert!(check_access(&member, directory.path(), Access::Write).is_err());
        set_mode(directory.path(), 0o775);
        assert!(check_access(&member, directory.path(), Access::Write).is_ok());
        // A directory on the way that can't be searched is named.
        set_mode(directory.path(), 0o700);
        assert_eq!(
            check_access(&other, &file, Access::Read),
            Err(AccessError::Denied {
                path: directory.path().to_owned(),
                owner: metadata.uid(),
                group: metadata.gid(),
                mode: 0o700
            })
        );
        let missing = directory.path().join("missing");
        assert_eq!(
            check_access(&user(0, Vec::new()), &missing, Access::Read),
            Err(AccessError::Missing(missing))
        );
    }
}
