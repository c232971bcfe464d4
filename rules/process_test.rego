package agent_policy_test

import data.agent_policy
import rego.v1

shop := {"env": {
	"fixed": ["PATH=/bin", "MODE=a=b"],
	"optional": {"OPT": "^x$"},
	"patterns": {"IP": "^[0-9.]+$"},
	"templates": {"POD": "$(sandbox-name).$(sandbox-namespace)"},
}}

shared_env := {"version": 1, "common": {"env": {"names": {"TERM": "^xterm$"}, "whole": ["^[A-Z_]+_HOST=[0-9.]+$"]}}}

state := {"pod": {"name": "web-0", "namespace": "prod", "uid": "u"}}

usual := ["PATH=/bin", "MODE=a=b", "IP=10.0.0.1", "POD=web-0.prod"]

accepted(env, level) if {
	agent_policy.env_ok(shop, env, level) with data.agent_policy.policy_data as shared_env with data.pstate as state
}

test_env if {
	every env in [usual, array.concat(usual, ["OPT=x"]), array.concat(usual, ["TERM=xterm", "DB_HOST=10.0.0.2"])] {
		accepted(env, "required")
	}
	accepted([], "optional")
	accepted(["PATH=/bin"], "optional")
}

test_env_refused if {
	every extra in ["PATH=/bin", "PATH=/evil", "MODE=a", "IP=x", "IP=10.0.0.2", "OPT=y", "POD=web-0.prod", "TERM=vt100", "NEW=1", "NEW", "", "=", "DB_HOST=x", "TERM"] {
		not accepted(array.concat(usual, [extra]), "required")
		not accepted(array.concat(usual, [extra]), "optional")
	}
	every i in numbers.range(0, 3) {
		not accepted([entry | some j, entry in usual; j != i], "required")
	}
}

test_templates if {
	agent_policy.filled("$(sandbox-name)/$(sandbox-namespace)/$(sandbox-uid)") == "web-0/prod/u" with data.pstate as state
}
