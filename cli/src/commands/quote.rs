//! `millpool quote`: what could be had, and how to book it.

use super::{Desk, json_of};
use crate::failure::Failure;
use crate::order::OrderArgs;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use clap::Args;
use millpool_proto::v1::{Assignment, Obstacle, Option as Choice, Order, QuoteRequest, QuoteResponse};
use serde_json::json;
use std::path::PathBuf;

/// Asks for options: machines, dates, prices and carbon. Keeps nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  millpool quote --quantity 20 --material aluminium --size 200x120x60 --mass 3kg \\
      --op \"five-axis family=F1 setup=20m run=6m tol=20\" \\
      --op \"cmm family=F2 run=90s\" --due +5d
  millpool quote --order bracket.toml --due 'fri 17:00' --details
  millpool quote --order bracket.json --save quote.json
  millpool book --quote quote.json --option 2")]
pub struct QuoteArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Show each option's operations and what its price is made of
    #[arg(long)]
    details: bool,
    /// Keep the order and its options in a file, for 'millpool book --quote FILE --option N'
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// Runs it.
pub async fn run(args: &QuoteArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let order = args.order.read(&desk.output.clock)?;
    let quote = desk.client()?.quote(QuoteRequest { order: Some(order.clone()), consistency: None }).await?;
    if let Some(path) = &args.save {
        let kept = json!({
            "order": json_of("Order", &order)?,
            "options": json_of("QuoteResponse", &quote)?["options"],
        });
        std::fs::write(path, format!("{kept:#}\n"))
            .map_err(|error| format!("--save {}: {error}", path.display()))?;
    }
    if desk.output.json {
        desk.output.value(&json_of("QuoteResponse", &quote)?)?;
    } else {
        print(&order, &quote, args.details, &mut desk.output)?;
        if !quote.options.is_empty() {
            let hint = how_to_book(&desk.invocation, args.save.as_ref());
            desk.output.line(hint)?;
        }
    }
    if quote.options.is_empty() { Err(Failure::Refused) } else { Ok(()) }
}

fn print(order: &Order, quote: &QuoteResponse, details: bool, output: &mut Output) -> Result<(), Failure> {
    if quote.options.is_empty() {
        let heading = output.paint(Tone::Bad, "Nothing in the pool fits");
        output.line(format!("{heading} {}.", in_words(order)))?;
        return obstacles(&quote.obstacles, output);
    }
    let (count, plural) = (quote.options.len(), if quote.options.len() == 1 { "" } else { "s" });
    output.line(format!("{count} option{plural} for {}", in_words(order)))?;
    let due = format!(
        "wanted by {} ({})",
        shown::time(order.due_s, &output.clock),
        shown::relative(order.due_s, &output.clock)
    );
    output.line(format!("{due}\n"))?;
    let sheet = options(order, &quote.options, output);
    output.sheet(&sheet)?;
    if details {
        for (index, option) in quote.options.iter().enumerate() {
            output.line(format!("\nOption {}", index + 1))?;
            option_details(order, option, output)?;
        }
    }
    Ok(())
}

fn options(order: &Order, options: &[Choice], output: &Output) -> Sheet {
    let columns = ["#", "BEST FOR", "DONE", "AGAINST DUE", "PROMISED BY", ">PRICE", ">CARBON", "MACHINES"];
    let mut sheet = Sheet::new(&columns);
    for (index, option) in options.iter().enumerate() {
        let best: Vec<&str> = option.best_for().map(shown::objective).collect();
        let spare = order.due_s - option.completes_at_s;
        let against = match spare {
            _ if order.due_s == 0 => (Tone::Plain, String::new()),
            0.. => (Tone::Good, format!("{} early", shown::duration(spare))),
            _ => (Tone::Warn, format!("{} late", shown::duration(-spare))),
        };
        let machines: Vec<&str> = option.assignments.iter().map(|at| at.machine_id.as_str()).collect();
        sheet.toned(vec![
            (Tone::Strong, (index + 1).to_string()),
            (Tone::Strong, best.join(", ")),
            (Tone::Plain, shown::time(option.completes_at_s, &output.clock)),
            against,
            (Tone::Plain, shown::time(option.promised_by_s, &output.clock)),
            (Tone::Plain, shown::money(option.price.as_ref().map_or(0, |price| price.total_fen))),
            (Tone::Plain, shown::carbon(option.carbon.as_ref().map_or(0, |carbon| carbon.total_g))),
            (Tone::Plain, machines.join(" → ")),
        ]);
    }
    sheet
}

fn option_details(order: &Order, option: &Choice, output: &mut Output) -> Result<(), Failure> {
    let price = option.price.unwrap_or_default();
    let made_of = format!(
        "{} = {} processing + {} setup + {} transport",
        shown::money(price.total_fen),
        shown::amount(price.processing_fen),
        shown::amount(price.setup_fen),
        shown::amount(price.transport_fen)
    );
    let carbon = option.carbon.as_ref().map_or_else(String::new, |carbon| {
        format!(
            "{} CO2e = {} machines + {} transport; {} modelled, grid factors {}",
            shown::carbon(carbon.total_g),
            shown::carbon(carbon.machine_g),
            shown::carbon(carbon.transport_g),
            shown::energy(u64::try_from(carbon.energy_wh).unwrap_or(0)),
            carbon.grid_factors.join(", ")
        )
    });
    let stands = shown::time(option.valid_until_s, &output.clock);
    output.particulars(&[("price", made_of), ("carbon", carbon), ("stands until", stands)])?;
    output.line("")?;
    let sheet = assignments(order, &option.assignments, output, false);
    Ok(output.sheet(&sheet)?)
}

/// Where and when each operation is made.
pub fn assignments(order: &Order, places: &[Assignment], output: &Output, states: bool) -> Sheet {
    let columns = ["OP", "CLASS", "MACHINE", "PLANT", "START", "END", ">TIME", ">CHANGEOVER", "STATE"];
    let mut sheet = Sheet::new(if states { &columns } else { &columns[..8] });
    for place in places {
        let class = order.route.get(place.operation as usize).map_or("", |step| shown::class(step.class()));
        let mut row = vec![
            place.operation.to_string(),
            class.to_owned(),
            place.machine_id.clone(),
            place.plant_id.clone(),
            shown::time(place.start_s, &output.clock),
            shown::time(place.end_s, &output.clock),
            shown::duration(place.end_s - place.start_s),
            shown::duration(i64::from(place.changeover_s)),
        ];
        if states {
            row.push(shown::operation_state(place.state()).to_owned());
        }
        sheet.row(row);
    }
    sheet
}

/// Why nothing fits.
pub fn obstacles(obstacles: &[Obstacle], output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(&["OP", "REQUIREMENT", "ASKED", "THE POOL HAS", "EXCLUDES"]);
    for obstacle in obstacles {
        let of = obstacle.machines_of_class;
        sheet.toned(vec![
            (Tone::Plain, obstacle.operation.to_string()),
            (Tone::Strong, obstacle.requirement.clone()),
            (Tone::Plain, obstacle.asked.clone()),
            (Tone::Plain, obstacle.available.clone()),
            (Tone::Plain, format!("{} of {of} machines", obstacle.machines_excluded)),
        ]);
    }
    if !sheet.is_empty() {
        output.line("")?;
        output.sheet(&sheet)?;
    }
    Ok(())
}

/// An order in a few words.
pub fn in_words(order: &Order) -> String {
    let mut words = format!("{} × {}", shown::grouped(u64::from(order.quantity)), order.material);
    if order.size.is_some() {
        words += &format!(", {} mm", shown::size(order.size.as_ref()));
    }
    if order.mass_g > 0 {
        words += &format!(", {}", shown::mass(order.mass_g));
    }
    words
}

/// The command that books what was quoted, made of the one that asked.
fn how_to_book(invocation: &[String], saved: Option<&PathBuf>) -> String {
    let book = match saved {
        Some(path) => format!("millpool book --quote {} --option 1", quoted(&path.to_string_lossy())),
        None => {
            let mut words = vec!["millpool".to_owned()];
            let mut asked = false;
            for word in invocation.iter().skip(1).filter(|word| *word != "--details") {
                if word == "quote" && !asked {
                    asked = true;
                    words.push("book".to_owned());
                } else {
                    words.push(quoted(word));
                }
            }
            words.push("--option 1".to_owned());
            words.join(" ")
        }
    };
    format!(
        "\nTo book an option (or --cheapest, --fastest, --greenest; add --hold 2h to decide later):\n  {book}"
    )
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+.,:/@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_can_be_pasted_into_a_shell() {
        let words = [
            "/usr/bin/millpool",
            "quote",
            "--op",
            "mill family=F1 run=6m",
            "--reference",
            "it's",
            "--details",
        ];
        let invocation: Vec<String> = words.iter().map(ToString::to_string).collect();
        let hint = how_to_book(&invocation, None);
        assert!(
            hint.ends_with(r"millpool book --op 'mill family=F1 run=6m' --reference 'it'\''s' --option 1"),
            "{hint}"
        );
        let hint = how_to_book(&invocation, Some(&PathBuf::from("my quote.json")));
        assert!(hint.ends_with("millpool book --quote 'my quote.json' --option 1"), "{hint}");
    }
}
