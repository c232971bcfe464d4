# Of whoever builds the image.
package agent_policy

default SetPolicyRequest := true
