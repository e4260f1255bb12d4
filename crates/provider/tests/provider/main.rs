//! The stand-in provider as its clients see it, over real connections.

mod client;
mod openai_chat;
mod stand_in;
