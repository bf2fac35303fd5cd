//! Whose files a command would write.
//!
//! A command beside the service writes what the service has to read and to replace: as
//! another user, root included, it would leave files that only that user can open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;

use super::fault::Fault;

/// Refuses to go on as another user than the owner of this file or folder. What is not
/// there is nobody's.
pub(super) fn is_ours(path: &Path) -> Result<(), Fault> {
    is_of(path, geteuid().as_raw())
}

fn is_of(path: &Path, user: u32) -> Result<(), Fault> {
    let owner = match fs::metadata(path) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Fault::failed(format_args!("{}: {error}", path.display()))),
    };
    if owner == user {
        return Ok(());
    }
    Err(Fault::failed(format_args!(
        "{} belongs to user {owner}, and this runs as user {user}: the service could not read what \
         it would write. Run it as the service's user: setpriv --reuid={owner} \
         --regid={owner} --clear-groups kms …, or runuser -u NAME -- kms …",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_goes_on_and_what_is_not_there_is_nobodys() {
        let folder = tempfile::tempdir().expect("a folder");
        let me = geteuid().as_raw();
        assert!(is_of(folder.path(), me).is_ok());
        assert!(is_ours(folder.path()).is_ok());
        let refused = is_of(folder.path(), me + 1).expect_err("another's");
        assert!(refused.to_string().contains("belongs to user"), "{refused}");
        assert!(is_of(&folder.path().join("none"), me + 1).is_ok());
    }
}
