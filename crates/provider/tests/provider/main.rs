//! The stand-in provider as its clients see it, over real connections.

mod client;
mod openai_chat;
mod protocols;
mod stand_in;
