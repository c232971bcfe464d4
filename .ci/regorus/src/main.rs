//! Decides requests as kata-agent does: decide POLICY < REQUESTS. A line of REQUESTS is {"kind", "request", "data"}, where data
//! is the state; a line of the answer is "true", "false", or "false" with an error behind it.

use std::io::{self, BufRead};
use std::{env, error::Error, fs};

use regorus::{Engine, Value};

fn main() -> Result<(), Box<dyn Error>> {
    let policy = env::args().nth(1).ok_or("usage: decide POLICY < REQUESTS")?;
    let mut engine = Engine::new();
    engine.set_rego_v0(true);
    engine.add_policy("policy.rego".into(), fs::read_to_string(policy)?)?;
    for line in io::stdin().lock().lines() {
        let request = Value::from_json_str(&line?)?;
        engine.clear_data();
        engine.add_data(request["data"].clone())?;
        engine.set_input(request["request"].clone());
        let kind = request["kind"].as_string()?;
        match engine.eval_query(format!("data.agent_policy.{kind}"), false) {
            Ok(answer) => println!("{}", allows(answer.result.first().map(|r| &r.expressions[0].value))),
            Err(error) => println!("false {}", error.to_string().replace('\n', " ")),
        }
    }
    Ok(())
}

/// True, or an object whose member allowed is true; anything else denies.
fn allows(value: Option<&Value>) -> bool {
    let yes = Value::from(true);
    value.is_some_and(|v| *v == yes || v["allowed"] == yes)
}
