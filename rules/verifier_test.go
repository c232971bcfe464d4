// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"

	"portcullis/hostdata/initdata"
	"portcullis/rules"
)

// trusteeVar names a checkout of Trustee, whose default EAR policy is then asked too: make trustee TRUSTEE=path.
const trusteeVar = "PORTCULLIS_TRUSTEE"

// identifiers is the query that verifier services make of a policy, said in our words.
const identifiers = `package identifiers

import rego.v1

containers := input.init_data_claims.agent_policy_claims.containers

result := {
	"container_images": [name | some c in containers; name := c.OCI.Annotations["io.kubernetes.cri.image-name"]],
	"container_uids": [uid | some c in containers; uid := c.OCI.Process.User.UID],
}`

// claims is what a service makes of initdata: of a policy, the JSON behind the first "policy_data := ", to the text's end.
func claims(t *testing.T, policy []byte) map[string]any {
	t.Helper()
	doc, err := initdata.New("sha256", map[string]string{initdata.PolicyKey: string(policy)})
	if err != nil {
		t.Fatal(err)
	}
	again, err := initdata.Parse(doc.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := again.Value(initdata.PolicyKey)
	at := strings.Index(text, "policy_data := {")
	if at < 0 {
		t.Fatal("there is no policy_data in the text")
	}
	var data any
	if err := json.Unmarshal([]byte(text[at+len("policy_data := "):]), &data); err != nil {
		t.Fatalf("what follows policy_data is not JSON to its end: %v", err)
	}
	return map[string]any{"init_data_claims": map[string]any{"agent_policy_claims": data}}
}

type identified struct {
	Images []string `json:"container_images"`
	UIDs   []uint32 `json:"container_uids"`
}

func ask(t *testing.T, module, query string, input any) identified {
	t.Helper()
	// The service's own function, of which an identifier needs nothing.
	reference := rego.Function1(&rego.Function{Name: "query_reference_value", Decl: types.NewFunction(types.Args(types.S), types.A)},
		func(rego.BuiltinContext, *ast.Term) (*ast.Term, error) { return ast.ArrayTerm(), nil })
	r, err := rego.New(reference, rego.Module("policy.rego", module), rego.Query(query), rego.Input(input)).Eval(t.Context())
	if err != nil || len(r) != 1 {
		t.Fatalf("%v: %v", r, err)
	}
	raw, err := json.Marshal(r[0].Expressions[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	var out identified
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out.Images)
	slices.Sort(out.UIDs)
	return out
}

// TestVerifierServicesReadImagesAndUsers: they do it over initdata, of either form of a policy.
func TestVerifierServicesReadImagesAndUsers(t *testing.T) {
	p := onePod(t)
	p.Containers["web"].OCI.Process.User.UID = 1000
	var images []string
	var uids []uint32
	for _, c := range p.Containers {
		if c.OCI.Annotations.ImageName != "" {
			images = append(images, c.OCI.Annotations.ImageName)
		}
		uids = append(uids, c.OCI.Process.User.UID)
	}
	slices.Sort(images)
	slices.Sort(uids)
	if len(images) == 0 || !slices.Contains(uids, 1000) {
		t.Fatalf("the pod says little: %q, %d", images, uids)
	}
	for form, write := range map[string]func(string) ([]byte, error){"full": p.Full, "compact": p.Compact} {
		t.Run(form, func(t *testing.T) {
			text, err := write(rules.Text())
			if err != nil {
				t.Fatal(err)
			}
			check := func(got identified) {
				t.Helper()
				t.Logf("%d images %q, users %d", len(got.Images), got.Images, got.UIDs)
				if !slices.Equal(got.Images, images) || !slices.Equal(got.UIDs, uids) {
					t.Errorf("want images %q, users %d", images, uids)
				}
			}
			input := claims(t, text)
			check(ask(t, identifiers, "data.identifiers.result", input))
			if tree := os.Getenv(trusteeVar); tree != "" {
				module, err := os.ReadFile(filepath.Join(tree, "attestation-service/src/ear_token/ear_default_policy_cpu.rego"))
				if err != nil {
					t.Fatal(err)
				}
				check(ask(t, string(module), "data.policy.validated_identifiers", input))
			}
		})
	}
}
