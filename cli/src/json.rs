//! The contract's messages as JSON, by the field names of the .proto files, and files of them read.
//!
//! Written: every field, also those at their default, 64-bit integers as numbers, enums by their names
//! in the contract. Read: the same, as JSON or TOML; and where the contract wants a number or a box, the
//! form that a person would write on the command line is understood too: `"due_s": "+5d"`,
//! `"setup_s": "20m"`, `"size": "200x120x60"`, `"class": "five-axis"`.

use crate::written::{self, Clock, When};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, SerializeOptions,
};
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;

/// Largest file that is read, bytes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

fn descriptor(name: &str) -> Result<MessageDescriptor, String> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(millpool_proto::DESCRIPTORS).ok())
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&format!("millpool.v1.{name}")))
        .ok_or_else(|| format!("the contract has no message {name}"))
}

/// A message as JSON. `name` is its name in the contract, e.g. "Booking".
pub fn show<M: Message>(name: &str, message: &M) -> Result<Value, String> {
    let mut dynamic = DynamicMessage::new(descriptor(name)?);
    dynamic.transcode_from(message).map_err(|error| error.to_string())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
}

/// A message from JSON.
pub fn read<M: Message + Default>(name: &str, mut value: Value, clock: &Clock) -> Result<M, String> {
    let descriptor = descriptor(name)?;
    understand(&descriptor, &mut value, clock, "")?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor, value, &options)
        .map_err(|error| error.to_string())?;
    dynamic.transcode_to().map_err(|error| error.to_string())
}

/// The content of a JSON or TOML file ("-" reads JSON from standard input).
pub fn file(path: &Path) -> Result<Value, String> {
    let told = path.display();
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}"))?
    } else {
        let size = std::fs::metadata(path).map_err(|error| format!("{told}: {error}"))?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("{told}: {size} bytes; at most {FILE_BYTES_MAX} are read"));
        }
        std::fs::read_to_string(path).map_err(|error| format!("{told}: {error}"))?
    };
    if path.extension().is_some_and(|end| end == "toml") {
        let value: toml::Value = toml::from_str(&text).map_err(|error| format!("{told}: {error}"))?;
        return Ok(from_toml(value));
    }
    serde_json::from_str(&text).map_err(|error| format!("{told}: {error}"))
}

fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(yes) => Value::from(yes),
        toml::Value::Datetime(time) => Value::from(time.to_string()),
        toml::Value::Array(items) => items.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect())
        }
    }
}

/// Turns what a person would write into what the contract wants, wherever a message holds it.
fn understand(message: &MessageDescriptor, value: &mut Value, clock: &Clock, at: &str) -> Result<(), String> {
    let Value::Object(fields) = value else { return Ok(()) };
    for (key, value) in fields {
        let Some(field) = message.get_field_by_name(key).or_else(|| message.get_field_by_json_name(key))
        else {
            continue; // refused with its name when the message is read
        };
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let at = at.as_str();
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    understand_one(&field, item, clock, &format!("{at}[{index}]"))?;
                }
            }
            one => understand_one(&field, one, clock, at)?,
        }
    }
    Ok(())
}

fn understand_one(field: &FieldDescriptor, value: &mut Value, clock: &Clock, at: &str) -> Result<(), String> {
    let Value::String(text) = &*value else {
        return match field.kind() {
            Kind::Message(inner) => understand(&inner, value, clock, at),
            _ => Ok(()),
        };
    };
    let read = match field.kind() {
        Kind::Enum(of) => Ok(Value::from(enum_name(&of, text))),
        Kind::Message(inner) if inner.name() == "Size" => written::workpiece(text)
            .map(|size| serde_json::json!({"x_mm": size.x_mm, "y_mm": size.y_mm, "z_mm": size.z_mm})),
        Kind::Uint32 | Kind::Uint64 | Kind::Int64 if text.parse::<i64>().is_err() => {
            number(field, text, clock)
        }
        _ => return Ok(()),
    };
    *value = read.map_err(|accepted| format!("{at} '{text}' is not {accepted}"))?;
    Ok(())
}

/// What is written in a field of numbers. In the contract, 64-bit `_s` are times and 32-bit `_s` are
/// durations.
fn number(field: &FieldDescriptor, text: &str, clock: &Clock) -> Result<Value, String> {
    let (name, kind) = (field.name(), field.kind());
    if name.ends_with("_s") && kind == Kind::Int64 {
        When::read(text)?.resolve_s(clock).map(Value::from)
    } else if ["_s", "_s_per_piece"].iter().any(|end| name.ends_with(end))
        || ["seconds", "s_per_km"].contains(&name)
    {
        written::duration_s(text).map(Value::from)
    } else if name.ends_with("_fen") || name.contains("_fen_per_") {
        written::money_fen(text).map(Value::from)
    } else if name.starts_with("mass") {
        written::mass_g(text).map(Value::from)
    } else if name.ends_with("_um") {
        written::tolerance_um(text).map(Value::from)
    } else {
        Err("a whole number".to_owned())
    }
}

/// An enum value's name in the contract, from that name or from its distinguishing part:
/// "five-axis" is MACHINE_CLASS_FIVE_AXIS.
fn enum_name(of: &EnumDescriptor, text: &str) -> String {
    if of.get_value_by_name(text).is_some() {
        return text.to_owned();
    }
    let wanted = format!("_{}", text.to_uppercase().replace(['-', ' '], "_"));
    let mut values = of.values();
    values
        .find(|value| value.name().ends_with(&wanted))
        .map_or_else(|| text.to_owned(), |value| value.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use millpool_proto::v1::{MachineClass, Order, Policy};
    use serde_json::json;

    fn clock() -> Clock {
        Clock { now: "2026-11-25T02:30:00Z".parse().unwrap(), zone: TimeZone::UTC }
    }

    #[test]
    fn an_order_is_read_as_people_write_it() {
        let value = json!({
            "reference": "bracket", "quantity": 20, "material": "aluminium",
            "size": "60x200x120", "mass_g": "3kg", "due_s": "+5d", "budget_fen": "5,000 CNY",
            "route": [{"class": "five-axis", "setup_family": "F1", "setup_s": "20m",
                       "run_s_per_piece": 360, "tolerance_um": "0.02mm"}],
        });
        let order: Order = read("Order", value, &clock()).unwrap();
        assert_eq!(order.size.unwrap().x_mm, 200);
        assert_eq!(order.mass_g, 3000);
        assert_eq!(order.due_s, clock().now_s() + 432_000);
        assert_eq!(order.budget_fen, 500_000);
        assert_eq!(order.route[0].class(), MachineClass::FiveAxis);
        assert_eq!((order.route[0].setup_s, order.route[0].tolerance_um), (1200, 20));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({"quantity": 3, "material": "steel", "due_s": 1_800_000_000,
            "route": [{"class": "MACHINE_CLASS_CMM", "run_s_per_piece": 90}]});
        let order: Order = read("Order", value, &clock()).unwrap();
        let shown = show("Order", &order).unwrap();
        assert_eq!(shown["due_s"], 1_800_000_000);
        assert_eq!(shown["budget_fen"], 0, "fields at their default are written too");
        assert_eq!(shown["route"][0]["class"], "MACHINE_CLASS_CMM");
        assert_eq!(read::<Order>("Order", shown, &clock()).unwrap(), order);
    }

    #[test]
    fn bad_files_name_the_field_the_value_and_what_is_accepted() {
        let cases = [
            ("Order", json!({"quantty": 3}), "quantty"),
            ("Order", json!({"due_s": "whenever"}), "due_s 'whenever' is not +5d"),
            ("Order", json!({"route": [{"setup_s": "20"}, {"setup_s": "x"}]}), "route[1].setup_s 'x'"),
            ("Order", json!({"route": [{"class": "saw"}]}), "saw"),
            ("Order", json!({"quantity": "many"}), "quantity 'many' is not a whole number"),
            ("Order", json!({"size": "big"}), "size 'big' is not three edges"),
            ("Order", json!(["an order?"]), ""),
            ("Policy", json!({"transport": {"base_s": "soon"}}), "transport.base_s 'soon'"),
        ];
        for (name, value, told) in cases {
            let shown = value.to_string();
            let error = match name {
                "Policy" => read::<Policy>(name, value, &clock()).unwrap_err(),
                _ => read::<Order>(name, value, &clock()).unwrap_err(),
            };
            assert!(error.contains(told), "{shown}: {error}");
        }
    }
}
