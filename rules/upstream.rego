# x
package agent_policy

import rego.v1
