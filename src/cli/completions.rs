//! `sidentity completions SHELL`: a script by which a shell completes commands, options and values.

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, ValueEnum, ValueHint};
use clap_complete::Shell as Generator;

use super::exit::{Exit, write_output};
use super::flags::Flags;

/// Print a script that completes commands, options and values in a shell
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell that reads the script
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script of one shell on stdout.
///
/// # Errors
///
/// Stdout cannot be written, for another reason than a closed pipe.
pub(super) fn run(args: &CompletionsArgs, command: Command) -> Result<(), Exit> {
    let shell = match args.shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    // Without a command, the options are those of `run`.
    let command = Flags::augment_args(command);
    let mut command = with_values(command, shell);
    clap_complete::generate(shell, &mut command, "sidentity", &mut script);
    if matches!(args.shell, Shell::Fish) {
        script.extend_from_slice(shells_for_fish().as_bytes());
    }
    write_output("the completion script", String::from_utf8_lossy(&script))
}

/// Returns the line by which fish completes SHELL. The generator for fish omits positional arguments.
fn shells_for_fish() -> String {
    let names: Vec<String> = Shell::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value)
        .map(|value| value.get_name().to_owned())
        .collect();
    format!(
        "complete -c sidentity -n \"__fish_sidentity_using_subcommand completions\" -f -a \"{}\"\n",
        names.join(" ")
    )
}

/// Describes every value by the name that `--help` shows for it. The configuration parses values, so the command that
/// reads arguments knows none of them.
fn with_values(command: Command, shell: Generator) -> Command {
    command
        .mut_args(|arg| with_value(arg, shell))
        .mut_subcommands(|command| with_values(command, shell))
}

fn with_value(arg: Arg, shell: Generator) -> Arg {
    let is_boolean = !arg.get_action().takes_values();
    let Some([name]) = arg.get_value_names().filter(|_| !is_boolean) else {
        return arg;
    };
    let forms: Vec<&str> = match name.as_str() {
        "BOOL" => vec!["true", "false"],
        name => name.split('|').collect(),
    };
    let is_word = |form: &&str| {
        form.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let words = forms.iter().copied().filter(is_word);
    // clap accepts static texts only. The leak is small, and the process ends after one script.
    let words: Vec<&'static str> = words.map(|word| &*word.to_owned().leak()).collect();
    let hint = match forms.last() {
        Some(&"FILE") => ValueHint::FilePath,
        Some(&"DIR") => ValueHint::DirPath,
        Some(&"URL") => ValueHint::Url,
        Some(&"CMD") => ValueHint::CommandWithArguments,
        _ => ValueHint::Unknown,
    };
    // If no word matches, bash completes files. The other shells complete either words or files.
    let offers_words = hint != ValueHint::FilePath || shell == Generator::Bash;
    if offers_words && !words.is_empty() {
        arg.value_parser(PossibleValuesParser::new(words))
    } else {
        arg.value_hint(hint)
    }
}
