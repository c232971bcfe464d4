// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/internal/imagestest"
	"portcullis/rules"
	"portcullis/rules/generate"

	"portcullis/rules/review"
)

// warned is one warning.
type warned struct {
	name     string
	spec     string // of the pod, beside its container
	web      string // of the container: one key, or several in braces
	more     string // further documents
	settings string
	platform string
	warned   string // by genpolicy
	said     string // by report and explain
	level    review.Level
}

// told is what genpolicy warns of, and how reports and explanations of the policy say it.
var told = []warned{
	{name: "an image by tag", warned: "is named by a tag", said: "web: The image's content is not bound: named by a tag", level: review.Grave},
	{name: "an image of the host", platform: "host-pull", said: "web: The image's content is not bound", level: review.Grave},
	{name: "a secret in clear", web: "env: [{name: DB, valueFrom: {secretKeyRef: {name: s, key: password}}}]",
		more: "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: x}\n", warned: "the policy has it in clear", said: "web: Values that stand in the policy in clear, whatever they come from: DB.", level: review.Note},
	{name: "a secret in clear by its name", web: "env: [{name: DB_PASSWORD, value: x}]", said: "web: In the policy in clear, and so known to the host: DB_PASSWORD", level: review.Grave},
	{name: "a secret by hash", web: "env: [{name: DB, valueFrom: {secretKeyRef: {name: s, key: password}}}]", settings: "generate.secrets = 'hash'",
		more: "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: x}\n", warned: "is bound by the hash", said: "web: DB is bound by the hash of its value", level: review.Note},
	{name: "a secret that was not given", web: "env: [{name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}]", settings: "generate.secrets = 'unbound'",
		warned: "the host may choose its value", said: "web: DB_PASSWORD may have any value: the host may choose this secret", level: review.Grave},
	{name: "a directory of the host", spec: "volumes: [{name: v, hostPath: {path: /data}}]", web: "volumeMounts: [{name: v, mountPath: /data}]",
		warned: "of the host, whose content is not bound", said: "web: The host fills, reads and may change /data", level: review.Grave},
	{name: "a persistent volume", spec: "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", web: "volumeMounts: [{name: v, mountPath: /data}]",
		warned: "whose content comes from the host", said: "web: The host fills, reads and may change /data", level: review.Grave},
	{name: "a block device", spec: "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", web: "volumeDevices: [{name: v, devicePath: /dev/x}]",
		warned: "is the block device of", said: "web: The content of block devices comes from the host: /dev/x", level: review.Grave},
	{name: "a ConfigMap that was not given", spec: "volumes: [{name: v, configMap: {name: c}}]", web: "volumeMounts: [{name: v, mountPath: /conf}]",
		warned: "whose content was not given", said: "web: The host fills, reads and may change /conf", level: review.Grave},
	{name: "an emptyDir on the host", spec: "volumes: [{name: v, emptyDir: {}}]", web: "volumeMounts: [{name: v, mountPath: /scratch}]", settings: "generate.empty_dir = 'shared'",
		warned: "which this platform keeps on the host", said: "web: The host fills, reads and may change /scratch", level: review.Grave},
	{name: "a path of an emptyDir", spec: "volumes: [{name: v, emptyDir: {}}]", web: "volumeMounts: [{name: v, mountPath: /scratch, subPath: a}]",
		warned: "the runtime then uses a directory of the host", said: "web: The host fills, reads and may change /scratch", level: review.Grave},
	{name: "a secret by a hash that was given", web: "env: [{name: DB, valueFrom: {secretKeyRef: {name: s, key: password}}}]",
		settings: "generate.secrets = 'hash'\ngenerate.secret_hashes = {'s/password' = '" + strings.Repeat("ab", 32) + "'}",
		warned:   "in generate.secret_hashes", said: "web: DB is bound by the hash of its value", level: review.Note},
	{name: "a secret in an argument", web: "{env: [{name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}], args: [--key=$(DB_PASSWORD)]}",
		settings: "generate.secrets = 'unbound'", warned: "into argument", said: "web: The host may choose argument 1 within", level: review.Look},
	{name: "a path that is chosen at run time", spec: "volumes: [{name: v, configMap: {name: c}}]", more: configMap,
		web:    "{env: [{name: AT, valueFrom: {fieldRef: {fieldPath: status.podIP}}}], volumeMounts: [{name: v, mountPath: /conf, subPathExpr: $(AT)}]}",
		warned: "at run time, whose content is not bound", said: "web: The host fills, reads and may change /conf", level: review.Grave},
	{name: "a path that is not there", spec: "volumes: [{name: v, configMap: {name: c}}]", more: configMap, web: "volumeMounts: [{name: v, mountPath: /conf, subPath: none}]",
		warned: "does not hold; its content is not bound", said: "web: The host fills, reads and may change /conf", level: review.Grave},
	{name: "a volume of which a part is known", spec: "volumes: [{name: v, projected: {sources: [{configMap: {name: c}}, {configMap: {name: kube-root-ca.crt}}]}}]", more: configMap,
		web: "volumeMounts: [{name: v, mountPath: /conf}]", warned: "of which not every source was given", said: "web: The host fills, reads and may change /conf", level: review.Grave},
	{name: "a file that only the cluster knows", spec: "volumes: [{name: v, projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: token}}]}}]", more: configMap,
		web: "volumeMounts: [{name: v, mountPath: /conf}]", said: "web: The host chooses what is in /conf/token", level: review.Grave},
	{name: "the devices of the guest", spec: "volumes: [{name: v, hostPath: {path: /dev}}]", web: "volumeMounts: [{name: v, mountPath: /host/dev}]",
		warned: "in which are the devices of its TPM or TEE", said: "web: Sees /dev of the guest at /host/dev", level: review.Look},
	{name: "the network of the host", spec: "hostNetwork: true", warned: "Kata does not offer the network of the host", said: "The pod has no host name of its own (hostNetwork", level: review.Look},
	{name: "a privileged container", web: "securityContext: {privileged: true}", said: "web: Is privileged", level: review.Grave},
	{name: "init containers that can be skipped", settings: "order = 'free'", spec: "initContainers: [{name: first, image: registry.example/web:1}]", said: "Init containers can be skipped", level: review.Grave},
}

const configMap = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: x}\n"

// inNoPolicy is what genpolicy warns of and no policy has: it has no effect in the guest, or is nothing that the host could use.
var inNoPolicy = []string{
	"has no effect in the guest",       // SELinux options
	"which has no effect in the guest", // seccomp profiles of the node
	"is a port of the node",
	"a StatefulSet's controller puts the pod's name in its place", // the policy has that name
	"was not given and is optional; the policy takes it as absent",
	"kata-agent writes by way of one temporary file", // one of them may be lost, which no policy can change
	"of which the guest will not see",                // what an image has and tardev leaves out
	"puts the memory that the pod's containers share in its place",
}

// A warning that genpolicy learns to give is told in reports too, or named above with the reason why not.
func TestEveryWarningInTheSourceIsTold(t *testing.T) {
	files, err := filepath.Glob("../generate/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); !ok || method.Sel.Name != "warn" {
				return true
			}
			found++
			text := literals(call.Args[len(call.Args)-1], parsed)
			held := slices.ContainsFunc(inNoPolicy, func(words string) bool { return strings.Contains(text, words) }) ||
				slices.ContainsFunc(told, func(test warned) bool { return test.warned != "" && strings.Contains(text, test.warned) })
			if !held {
				t.Errorf("%s: no report is held to say that something %s", file, text)
			}
			return true
		})
	}
	if found < 20 {
		t.Errorf("%d warnings found in the source", found)
	}
}

// literals are the texts of an expression, those of a constant that it names included.
func literals(e ast.Node, file *ast.File) string {
	var out strings.Builder
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil {
				out.WriteString(text)
			}
		case *ast.Ident:
			if n.Obj == nil {
				break
			}
			if spec, ok := n.Obj.Decl.(*ast.ValueSpec); ok && len(spec.Values) == 1 && n.Obj.Kind == ast.Con {
				out.WriteString(literals(spec.Values[0], file))
			}
		}
		return true
	})
	return out.String()
}

type oneImage struct{ store *imagestest.Store }

func (o oneImage) Image(ctx context.Context, reference string) (*images.Image, error) {
	return images.NewOpener([]images.Store{o.store}, images.Options{}).Image(ctx, reference)
}

// What genpolicy warns of when it makes a policy, reports and explanations of that policy say too, and the grave things first. What
// has no effect in the guest (host ports, SELinux options, seccomp profiles) is in no policy.
func TestEveryWarningIsInReportAndExplanation(t *testing.T) {
	store := imagestest.NewStore()
	store.Add("registry.example/web:1", imagestest.WithFiles(images.Config{Entrypoint: []string{"/web"}, Env: []string{"PATH=/bin"}}, nil))
	for _, test := range told {
		t.Run(test.name, func(t *testing.T) {
			text := "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n  containers:\n  - name: web\n    image: registry.example/web:1\n"
			if inner, several := strings.CutPrefix(test.web, "{"); several {
				text = strings.Replace(text, "  - name: web\n    image: registry.example/web:1\n", "  - {name: web, image: \"registry.example/web:1\", "+inner+"\n", 1)
			} else if test.web != "" {
				text += "    " + test.web + "\n"
			}
			if test.spec != "" {
				text += "  " + test.spec + "\n"
			}
			p, warnings := policyOf(t, text+test.more, test.platform, test.settings, oneImage{store})
			if test.warned != "" && !slices.ContainsFunc(warnings, func(f *generate.Finding) bool { return strings.Contains(f.Text, test.warned) }) {
				t.Errorf("genpolicy does not warn that it %s", test.warned)
			}
			var explained strings.Builder
			if err := review.WriteText(&explained, "shop", p); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(explained.String(), test.said) {
				t.Errorf("explain does not say %s in\n%s", test.said, &explained)
			}
			full, err := p.Full(rules.Text())
			if err != nil {
				t.Fatal(err)
			}
			subject, err := review.Load(context.Background(), "shop.rego", full)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(subject.Warnings(), func(w review.Warning) bool {
				line := w.Text
				if w.Container != "" {
					line = w.Container + ": " + line
				}
				return w.Level == test.level && strings.HasPrefix(line, test.said)
			}) {
				t.Errorf("the report does not say %s among %v", test.said, subject.Warnings())
			}
		})
	}
}
