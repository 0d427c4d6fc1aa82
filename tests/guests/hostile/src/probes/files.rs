//! Files, by their paths relative to the one directory there may be.

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

use super::Outcome;

fn root() -> Result<Descriptor, &'static str> {
    get_directories().into_iter().map(|(directory, _)| directory).next().ok_or("no directory")
}

fn code(error: ErrorCode) -> &'static str {
    error.name()
}

fn done(result: Result<(), ErrorCode>) -> Outcome {
    result.map(|()| String::new()).map_err(code)
}

/// What is there, as the guest sees it.
pub(super) fn directories() -> Outcome {
    Ok(get_directories().into_iter().map(|(_, path)| path).collect::<Vec<_>>().join(","))
}

pub(super) fn read(path: &str) -> Outcome {
    let flags = PathFlags::SYMLINK_FOLLOW;
    let file = root()?.open_at(flags, path, OpenFlags::empty(), DescriptorFlags::READ).map_err(code)?;
    let (bytes, _) = file.read(100, 0).map_err(code)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn write(path: &str) -> Outcome {
    let flags = PathFlags::SYMLINK_FOLLOW;
    let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let file = root()?.open_at(flags, path, how, DescriptorFlags::WRITE).map_err(code)?;
    file.write(b"written by the guest", 0).map(|count| format!("{count} bytes")).map_err(code)
}

pub(super) fn truncate(path: &str) -> Outcome {
    let flags = PathFlags::SYMLINK_FOLLOW;
    let file = root()?.open_at(flags, path, OpenFlags::empty(), DescriptorFlags::WRITE).map_err(code)?;
    done(file.set_size(0))
}

pub(super) fn stat(path: &str) -> Outcome {
    root()?.stat_at(PathFlags::SYMLINK_FOLLOW, path).map(|stat| format!("{} bytes", stat.size)).map_err(code)
}

pub(super) fn list(path: &str) -> Outcome {
    let flags = PathFlags::SYMLINK_FOLLOW;
    let directory = root()?.open_at(flags, path, OpenFlags::DIRECTORY, DescriptorFlags::READ).map_err(code)?;
    let entries = directory.read_directory().map_err(code)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.read_directory_entry().map_err(code)? {
        names.push(entry.name);
    }
    names.sort_unstable();
    if names.len() > 100 {
        return Ok(format!("{} names", names.len()));
    }
    Ok(names.join(","))
}

pub(super) fn make_directory(path: &str) -> Outcome {
    done(root()?.create_directory_at(path))
}

pub(super) fn remove(path: &str) -> Outcome {
    done(root()?.unlink_file_at(path))
}

pub(super) fn symlink(target: &str, path: &str) -> Outcome {
    done(root()?.symlink_at(target, path))
}

pub(super) fn link(old: &str, new: &str) -> Outcome {
    let root = root()?;
    done(root.link_at(PathFlags::empty(), old, &root, new))
}

pub(super) fn rename(old: &str, new: &str) -> Outcome {
    let root = root()?;
    done(root.rename_at(old, &root, new))
}

/// Opens a file again and again, and closes none.
pub(super) fn open_many(path: &str, count: usize) -> Outcome {
    let root = root()?;
    for _ in 0..count {
        let how = OpenFlags::CREATE;
        let file = root.open_at(PathFlags::empty(), path, how, DescriptorFlags::READ).map_err(code)?;
        std::mem::forget(file);
    }
    Ok(format!("{count} files"))
}

/// Makes many files with long names.
pub(super) fn make_many(count: usize) -> Outcome {
    let root = root()?;
    for number in 0..count {
        let path = format!("{number:0200}");
        root.open_at(PathFlags::empty(), &path, OpenFlags::CREATE, DescriptorFlags::WRITE).map_err(code)?;
    }
    Ok(format!("{count} files"))
}
