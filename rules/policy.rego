# Where the rules find the pod's policy. Absolute, so that it may be a rule of
# this package (the full form) or a document loaded beside it (the compact form).
package agent_policy

import rego.v1

# By way of object.get the type checker takes it for anything. Otherwise it would
# refuse, in the full form, a rule that this one pod's policy can never need.
policy := found if {
	found := object.get({"policy": data.agent_policy.policy_data}, "policy", null)
	found.version == 1
}

policy_container(name) := policy.containers[name]

container_names := object.keys(policy.containers)
