//! The name of a row's folder, out of a pattern. Pure.

use serde_json::Value;

use crate::client::http::sound_name;

/// The pattern, if none is given.
pub(crate) const DEFAULT: &str = "job_{id}";

/// Fills `{id}`, `{back_end}` and parameters into a pattern. What is filled in makes no folder of
/// its own, and leads nowhere else.
pub(crate) fn name(pattern: &str, params: &Value, back_end: &str, id: &str) -> Result<String, String> {
    let mut name = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((field, after)) = after.split_once('}') else {
            return Err(format!("the pattern {pattern:?} has a {{ without a }}"));
        };
        name.push_str(before);
        let value = match (field, params.get(field)) {
            ("id", _) => id.to_owned(),
            ("back_end", _) => back_end.to_owned(),
            (_, Some(Value::String(text))) => text.clone(),
            (_, Some(value)) => value.to_string(),
            (_, None) => return Err(format!("the pattern {pattern:?} names {field:?}, which the row doesn't have")),
        };
        name.push_str(&sound_name(&value));
        rest = after;
    }
    name.push_str(rest);
    let is_within = name.split(['/', '\\']).all(|part| !matches!(part, "" | "." | "..")) && !name.contains(':');
    if is_within {
        Ok(name)
    } else {
        Err(format!("the pattern {pattern:?} leads to {name:?}, which isn't a folder below the root"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_filled_in_leads_nowhere_else() {
        let row = json!({"tile": "31 U/FS", "n": 7, "up": "..", "none": ""});
        let name = |pattern: &str| name(pattern, &row, "VITO", "j-1");
        assert_eq!(name("{tile}/{n}-{back_end}/{id}").as_deref(), Ok("31_U_FS/7-VITO/j-1"));
        for wrong in ["{other}", "{tile", "../{id}", "/{id}", "a//b", "C:{id}", ""] {
            assert!(name(wrong).is_err(), "{wrong}: {:?}", name(wrong));
        }
        for odd in ["{up}", "{none}"] {
            assert_eq!(name(odd).as_deref(), Ok("unnamed"), "{odd}");
        }
    }
}
