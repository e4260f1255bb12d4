//! `serin schema`: what may stand in a manifest, for editors and for people.

use clap::ValueEnum;
use serin_core::fields::{reference, schema};

use crate::told::Exit;

/// Print the JSON Schema of manifests, for editors
///
/// With yaml-language-server write this line on top of a manifest:
/// `# yaml-language-server: $schema=./manifest.schema.json`
#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArgs {
    /// In which form
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Form,
}

/// In which form the fields are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// JSON Schema 2020-12.
    #[default]
    Json,
    /// A reference of all fields for people.
    Markdown,
}

/// Prints it.
pub(crate) fn run(args: &SchemaArgs) -> Exit {
    match args.output {
        Form::Json => println!("{:#}", schema()),
        Form::Markdown => println!("{}", reference().trim_end()),
    }
    Exit::Done
}
