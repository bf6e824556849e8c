//! What breaks while messages are consumed, and what must hold all the same: nothing is lost, order is kept where it is
//! promised, and no more comes twice than had not been committed.
//!
//! Members of the groups are processes, so that they can be killed; [`run`] starts them. The forms here are short; `LONG` makes them as
//! many times longer, see [`integration_tests::scenario::long`].

mod commits;
mod crowds;
mod handlers;
mod kills;
mod offsets;
mod orders;
mod pressure;
mod run;
mod stops;
