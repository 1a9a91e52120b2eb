//! Whose certificate is it, and whose password: what a directory is asked, and what its answer is worth.
//!
//! Pure: a [`DirectoryQuestion`] says what is to be looked for and where, `lookup` fetches the accounts as they stand
//! there, and [`judge`] says what they mean for this certificate at this time. What the directory returns beyond what was
//! asked for counts for nothing; what it leaves unsaid counts against the account.

mod account;
mod judge;
mod keys;
mod name;
mod question;
mod settings;

pub use account::{DirectoryAccount, DirectoryGroup, Filetime};
pub use judge::{DirectoryRefusal, DirectoryVerdict, Found, judge_certificate, judge_logon};
pub use keys::{Form, Strength, certificate_filter, escape_filter};
pub use name::LogonName;
pub use question::{Asked, DirectoryAnswer, DirectoryQuestion};
pub use settings::{Directory, DirectoryBind, DirectorySettings, DirectoryUrl, Keeping};
