//! Configurations with one thing in another's place, as somebody may write or forge them.

use serde_json::{Value, json};

/// Every part of a configuration replaced by something of another kind, each alone, and in words what was done. Of long
/// lists the first part is taken for all.
pub fn damaged(config: &Value) -> Vec<(String, Value)> {
    let mut places = vec![];
    walk(config, String::new(), &mut places);
    let others = [json!(-1), json!(1e300), json!("word"), json!([]), json!({}), Value::Null];
    let each = |place: &String| {
        let damage = |other: &Value| {
            let mut config = config.clone();
            *config.pointer_mut(place)? = other.clone();
            Some((format!("{other} at {place}"), config))
        };
        others.iter().filter_map(damage).collect::<Vec<_>>()
    };
    places.iter().flat_map(each).collect()
}

fn walk(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(parts) => {
            for (key, part) in parts {
                let place = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
                places.push(place.clone());
                walk(part, place, places);
            }
        }
        Value::Array(parts) => {
            if let Some(first) = parts.first() {
                places.push(format!("{place}/0"));
                walk(first, format!("{place}/0"), places);
            }
        }
        _ => {}
    }
}
