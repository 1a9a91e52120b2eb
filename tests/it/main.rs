//! The whole program from outside, with real clients and real sockets; and the rules of the house.

mod attacks;
mod browser;
mod clients;
mod commands;
mod corpus;
mod crds;
mod house;
mod independence;
mod reload;
mod serving;
mod story;
mod support;
