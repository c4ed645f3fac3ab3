//! Files: the configuration's own, and those that its settings name.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::fault::{Cause, Fault};
use super::place::Place;
use super::setting::NamedFile;

/// A configuration is written by people; what is longer than this is another file.
const LONGEST_BYTES: u64 = 1 << 20;

/// The text of a configuration's file.
pub(super) fn text(path: &Path) -> Result<String, Box<Fault>> {
    let refused = |cause| Box::new(Fault::new(Place::whole_file(path), "", cause));
    let unread = |error: io::Error| refused(unreadable(&error));
    let mut octets = Vec::new();
    let file = File::open(path).map_err(unread)?;
    file.take(LONGEST_BYTES + 1).read_to_end(&mut octets).map_err(unread)?;
    if octets.len() as u64 > LONGEST_BYTES {
        let rule = "longer than 1 MiB: this is not a configuration".into();
        return Err(refused(Cause::Rule { rule }));
    }
    String::from_utf8(octets).map_err(|error| {
        let message = format!("the octet at offset {} is not UTF-8", error.utf8_error().valid_up_to());
        refused(Cause::Syntax { message })
    })
}

/// What keeps this process from reading a file that a setting names, if anything does.
pub(super) fn fault(file: &NamedFile) -> Option<Fault> {
    let opened = File::open(&file.path).and_then(|opened| opened.metadata());
    let error = match opened {
        Ok(metadata) if metadata.is_dir() => io::ErrorKind::IsADirectory.into(),
        Ok(_) => return None,
        Err(error) => error,
    };
    let path = file.path.display().to_string();
    Some(Fault::new(file.place.clone(), &file.key, unreadable(&error)).with_value(&path))
}

fn unreadable(error: &io::Error) -> Cause {
    let kind = error.kind();
    let advice = if kind == io::ErrorKind::NotFound {
        "whoever mounts the pod's files must provide it, or correct its name here"
    } else if kind == io::ErrorKind::PermissionDenied {
        "its owner must let this process's user or group read it"
    } else if kind == io::ErrorKind::IsADirectory {
        "name a file in it"
    } else {
        "whoever runs this machine must look after the disk"
    };
    Cause::Unreadable { error: error.to_string(), advice }
}
