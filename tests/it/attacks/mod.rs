//! Under attack: clients that write what no honest client writes. Each must end in a refusal, nothing of it reach a
//! backend, and nobody else notice. `docs/security.md` says which file is for which history.

mod bystander;
mod chains;
mod downgrade;
mod fate;
mod floods;
mod handshakes;
mod impersonation;
mod paths;
mod slow;
mod smuggling;
