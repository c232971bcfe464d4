# Where the rules find the pod's policy. Absolute, so that it may be a rule of
# this package (the full form) or a document loaded beside it (the compact form).
package agent_policy

import rego.v1

policy := data.agent_policy.policy_data if data.agent_policy.policy_data.version == 1

policy_container(name) := policy.containers[name]

container_names := object.keys(policy.containers)
