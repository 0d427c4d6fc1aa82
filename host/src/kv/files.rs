//! Files for guests: what they try in vain is told, and directories are listed piece by piece.

use rustix::fs::{Dir, FileType};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{FsError, FsResult};

use super::sandbox::{Refused, Sandbox};

const INTERFACE: &str = "wasi:filesystem/types@0.2.12";

/// A directory being listed. `wasmtime-wasi` reads all names before it hands out the first, and a guest can make millions.
struct Listing(Dir);

/// Defines a method of `descriptor` as `wasmtime-wasi` has it, and tells of its refusals with the paths they were about.
macro_rules! watched {
    ($interface:ident, $name:literal, $method:ident($($argument:ident: $kind:ty),*) about $($path:ident),+) => {
        $interface.func_wrap_async(
            concat!("[method]descriptor.", $name),
            |mut store: StoreContextMut<'_, Sandbox>, (this, $($argument,)*): (Resource<Descriptor>, $($kind,)*)| {
                Box::new(async move {
                    let paths = [$($path.clone()),+];
                    let done = store.data_mut().filesystem().$method(this, $($argument),*).await;
                    told(store.data(), $name, &paths, done)
                })
            },
        )?;
    };
}

/// Puts the functions that take paths, and those that list, into `linker`, in place of those that are there.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(INTERFACE)?;
    let i = &mut interface;
    watched!(i, "open-at", open_at(follow: PathFlags, path: String, how: OpenFlags, flags: DescriptorFlags) about path);
    watched!(i, "stat-at", stat_at(follow: PathFlags, path: String) about path);
    watched!(i, "readlink-at", readlink_at(path: String) about path);
    watched!(i, "create-directory-at", create_directory_at(path: String) about path);
    watched!(i, "remove-directory-at", remove_directory_at(path: String) about path);
    watched!(i, "unlink-file-at", unlink_file_at(path: String) about path);
    watched!(i, "symlink-at", symlink_at(old: String, new: String) about old, new);
    watched!(i, "rename-at", rename_at(old: String, to: Resource<Descriptor>, new: String) about old, new);
    watched!(i, "link-at", link_at(follow: PathFlags, old: String, to: Resource<Descriptor>, new: String) about old, new);
    add_listing(i)
}

/// The refusals of a sandbox; other errors are part of a plugin's life.
fn told<T>(
    sandbox: &Sandbox,
    function: &str,
    paths: &[String],
    done: FsResult<T>,
) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match done {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => {
            let code = error.downcast()?;
            if matches!(code, ErrorCode::Access | ErrorCode::NotPermitted | ErrorCode::ReadOnly) {
                sandbox.refused(Refused::File, format_args!("{function} {}", paths.join(" ")));
            }
            Ok((Err(code),))
        }
    }
}

fn add_listing(interface: &mut LinkerInstance<'_, Sandbox>) -> wasmtime::Result<()> {
    interface.resource("directory-entry-stream", ResourceType::host::<Listing>(), |mut store, handle| {
        store.data_mut().table().delete(Resource::<Listing>::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, Sandbox>, (this,): (Resource<Descriptor>,)| {
            let table = store.data_mut().table();
            let listing = match table.get(&this)? {
                Descriptor::File(_) => return Ok((Err(ErrorCode::NotDirectory),)),
                Descriptor::Dir(directory) => Dir::read_from(&directory.dir),
            };
            match listing {
                Ok(listing) => Ok((Ok(table.push(Listing(listing))?),)),
                Err(error) => Ok((Err(code(error)?),)),
            }
        },
    )?;
    interface.func_wrap(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: StoreContextMut<'_, Sandbox>, (this,): (Resource<Listing>,)| {
            Ok((store.data_mut().table().get_mut(&this)?.next_entry()?,))
        },
    )
}

impl Listing {
    fn next_entry(&mut self) -> wasmtime::Result<Result<Option<DirectoryEntry>, ErrorCode>> {
        loop {
            let entry = match self.0.next() {
                None => return Ok(Ok(None)),
                Some(Err(error)) => return Ok(Err(code(error)?)),
                Some(Ok(entry)) => entry,
            };
            let Ok(name) = entry.file_name().to_str() else { return Ok(Err(ErrorCode::IllegalByteSequence)) };
            if name != "." && name != ".." {
                let type_ = descriptor_type(entry.file_type());
                return Ok(Ok(Some(DirectoryEntry { type_, name: name.to_owned() })));
            }
        }
    }
}

fn code(error: rustix::io::Errno) -> wasmtime::Result<ErrorCode> {
    FsError::from(std::io::Error::from(error)).downcast()
}

/// A file system that doesn't tell the type along with the name leaves it unknown, as WASI allows.
fn descriptor_type(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::Unknown => DescriptorType::Unknown,
    }
}
