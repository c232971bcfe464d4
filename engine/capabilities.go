// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// allowedBuiltins are the Rego builtins a policy may call: a pure function of its operands each, without network, clock,
// randomness, environment or unbounded shifts and ranges. Any other is an undefined function when the policy is compiled.
var allowedBuiltins = []string{
	// Operators and what the compiler itself emits.
	"and", "assign", "div", "eq", "equal", "gt", "gte", "internal.member_2", "internal.member_3", "internal.print",
	"internal.template_string", "lt", "lte", "minus", "mul", "neq", "or", "plus", "print", "rem",
	// Aggregates, numbers, types.
	"abs", "all", "any", "bits.and", "bits.negate", "bits.or", "bits.xor", "ceil", "count", "floor", "is_array", "is_boolean",
	"is_null", "is_number", "is_object", "is_set", "is_string", "max", "min", "product", "round", "sum", "to_number", "type_name",
	// Arrays, sets, objects.
	"array.concat", "array.flatten", "array.reverse", "array.slice", "intersection", "object.filter", "object.get", "object.keys",
	"object.remove", "object.subset", "object.union", "object.union_n", "set_diff", "sort", "union", "walk",
	// Strings.
	"concat", "contains", "endswith", "format_int", "indexof", "indexof_n", "lower", "replace", "split", "sprintf", "startswith",
	"strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "strings.replace_n", "strings.reverse", "substring",
	"trim", "trim_left", "trim_prefix", "trim_right", "trim_space", "trim_suffix", "upper",
	// RE2 expressions, which match in linear time.
	"re_match", "regex.find_all_string_submatch_n", "regex.find_n", "regex.is_valid", "regex.match", "regex.replace", "regex.split",
	// Encodings and digests.
	"base64.decode", "base64.encode", "base64.is_valid", "base64url.decode", "base64url.encode", "base64url.encode_no_pad",
	"crypto.sha256", "hex.decode", "hex.encode", "json.filter", "json.is_valid", "json.marshal", "json.patch", "json.remove",
	"json.unmarshal",
}

// capabilities is what a policy of one Rego version may use of the language.
func capabilities(version ast.RegoVersion) *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(version))
	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		return b.Nondeterministic || !slices.Contains(allowedBuiltins, b.Name)
	})
	caps.AllowNet = []string{}
	return caps
}
