//! Guests that attack what runs them. Each is contained, for a reason that can be read in the log, the metrics and the status,
//! while a healthy backend beside it stays right and MongoDB's operations stay prompt; and for each thing refused there is the
//! same thing granted, which works. `SECURITY.md` lists them.

mod binaries;
mod calls;
mod files;
mod network;
mod prober;
mod stage;
