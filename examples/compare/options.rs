//! What the command line asks for.

use std::time::Duration;

pub const USAGE: &str =
    "usage: compare [--seconds N] [--connections A,B,…] [--size BYTES] [--json]";

pub struct Options {
    pub time: Duration,
    pub connections: Vec<usize>,
    pub size: usize,
    pub json: bool,
}

pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        time: Duration::from_secs(10),
        connections: vec![1, 50, 500],
        size: 64,
        json: false,
    };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        let number = |text: &str, most: usize| match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name} {text}: a number from 1 to {most}, please")),
        };
        match name.as_str() {
            "--seconds" => {
                options.time = Duration::from_secs(number(&value()?, 3600)? as u64);
            }
            "--connections" => {
                let list = value()?;
                let counts = list.split(',').map(|count| number(count, 10_000));
                options.connections = counts.collect::<Result<_, _>>()?;
            }
            "--size" => options.size = number(&value()?, 1 << 20)?,
            "--json" => options.json = true,
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}
