//! What breaks between a client and its cluster, and what must hold all the same: no acknowledged message is lost, and
//! every send ends once.

mod answers;
mod bodies;
mod broker_loss;
mod connection;
mod consumers;
mod load;
