// SPDX-License-Identifier: Apache-2.0

package review

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"portcullis/engine/policytext"
	"portcullis/rules"
	"portcullis/rules/policydata"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// Decision is one decision of a trace, as the page shows it. Every text is shown as it is: what is secret has been hidden.
type Decision struct {
	Line    int
	Time    time.Time // zero if not known
	Kind    string
	Case    string
	Allowed bool
	Unknown string // what the record lacks for a decision, if it does
	Count   int    // how many the like came one after the other, at least 1
	About   string // container, if any
	Reason  string // of a denial
	Change  string // of a denial: what to change
	Then    string // what the record says was decided, where that differs
}

// PageOptions say what a page holds beside the policy.
type PageOptions struct {
	Secrets   bool // show values of variables
	Trace     string
	Decisions []Decision // nil without a trace
	Omitted   int        // decisions beyond those
	Proven    []string   // sentences about the policy that were proven
}

// MaxDecisions is how many decisions a page shows at most.
const MaxDecisions = 400

// page is what the template reads.
type page struct {
	Style      template.CSS
	Title      string
	Facts      []fact
	Proven     []string
	Warnings   []warningRow
	Counts     map[string]int
	Change     []string
	Containers []containerRow
	Common     []setRows
	Requests   []Answer
	HostChosen []hostRow
	Known      bool // the rules are ours: the list of what the host may choose holds
	Trace      *traceRows
}

type fact struct {
	Name, Value string
	Code        bool
}

// warningRow is one warning with the containers that it is about.
type warningRow struct {
	Level Level
	Text  string
	About []setLink
	More  int // containers beyond those
}

type containerRow struct {
	Name, Anchor     string
	Sandbox, Unbound bool
	Command, User    string
	Facts            []topicRows
	Extra            []string // capabilities beyond the usual
	Sets             []setLink
	Env              []row // its own: without what every container has
	Mounts           []row
	UsualEnv         int // of what every container has
	UsualMounts      int
	Annotations      []row
}

// Tables are what is listed in columns.
func (c containerRow) Tables() []table {
	all := []table{
		{"Environment of " + c.Name, "Environment", envColumns, c.Env},
		{"Mounts of " + c.Name, "Mounts", mountColumns, c.Mounts},
		{"Annotations of " + c.Name, "Annotations", []string{"Key", "Value", "Kind"}, c.Annotations},
	}
	return slices.DeleteFunc(all, func(t table) bool { return len(t.Rows) == 0 })
}

// table is a list in columns; Label is for those who do not see it.
type table struct {
	Label, Caption string
	Columns        []string
	Rows           []row
}

type setLink struct{ Words, Anchor string }

type setRows struct {
	Title, Anchor string
	Lines         []string
	Columns       []string // of Rows
	Rows          []row
}

// Table is the set's rows.
func (s setRows) Table() table { return table{Label: s.Title, Columns: s.Columns, Rows: s.Rows} }

type hostRow struct {
	Request string
	Items   []rules.HostChosen
}

type traceRows struct {
	Name            string
	Allowed, Denied int
	Unknown         int
	Decisions       []Decision
	Omitted         int
}

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"code":  breakable,
	"camel": camel,
	"prose": prose,
	"join":  strings.Join,
	"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
}).Parse(pageHTML))

// breakable lets a long word break behind the characters that end its parts, so
// that it fits a narrow page without being cut anywhere.
func breakable(s string) template.HTML {
	s = template.HTMLEscapeString(s)
	for _, mark := range []string{"/", "@", ":", ",", "=", "_"} {
		s = strings.ReplaceAll(s, mark, mark+"<wbr>")
	}
	return template.HTML(s)
}

// camel lets a name like CreateContainerRequest break before its words.
func camel(s string) template.HTML {
	return template.HTML(inner.ReplaceAllString(template.HTMLEscapeString(s), "$1<wbr>$2"))
}

var inner = regexp.MustCompile(`([a-z])([A-Z])`)

// prose marks as code what a text has in back quotes.
func prose(s string) template.HTML {
	return template.HTML(quoted.ReplaceAllString(template.HTMLEscapeString(s), "<code>$1</code>"))
}

var quoted = regexp.MustCompile("`([^`]+)`")

// WritePage writes one self-contained HTML page: no script, nothing that a browser would load.
func (s *Subject) WritePage(out io.Writer, o PageOptions) error {
	p := page{Style: template.CSS(pageCSS), Title: s.title(), Facts: s.facts(), Proven: o.Proven, Change: s.changers(), Requests: s.Answers, Counts: map[string]int{}}
	for _, w := range s.Warnings() {
		p.Warnings = warn(p.Warnings, w)
	}
	for _, w := range p.Warnings {
		p.Counts[string(w.Level)]++
	}
	if s.Data != nil {
		p.Known = s.Rules == Held
		for _, name := range s.names() {
			p.Containers = append(p.Containers, s.containerRow(name, o.Secrets))
		}
		slices.SortStableFunc(p.Containers, func(a, b containerRow) int { return rank(a) - rank(b) })
		p.Common = append(shareRows(p.Containers), s.sets()...)
	}
	if p.Known {
		p.HostChosen = hostRows()
	}
	if o.Decisions != nil {
		p.Trace = traced(o)
	}
	if err := pageTemplate.Execute(out, p); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// warn adds a warning, or its container to the like one that is there.
func warn(rows []warningRow, w Warning) []warningRow {
	link := setLink{Called(w.Container), anchor("container", w.Container)}
	for i := range rows {
		if r := &rows[i]; w.Container != "" && r.Level == w.Level && r.Text == w.Text {
			if len(r.About) < maxNamed {
				r.About = append(r.About, link)
			} else {
				r.More++
			}
			return rows
		}
	}
	row := warningRow{Level: w.Level, Text: w.Text}
	if w.Container != "" {
		row.About = []setLink{link}
	}
	return append(rows, row)
}

// maxNamed is how many containers a warning names.
const maxNamed = 6

// rank puts images that are not bound first, and the sandbox last.
func rank(c containerRow) int {
	switch {
	case c.Unbound:
		return 0
	case c.Sandbox:
		return 2
	}
	return 1
}

// anchor makes the id of an element from a name.
func anchor(kind, name string) string {
	return kind + "-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
}

// title is the workload's name: what the pattern of the pod's name begins with.
func (s *Subject) title() string {
	if s.Data == nil {
		return s.Name
	}
	name := strings.Trim(literal.FindString(strings.TrimPrefix(s.Data.Sandbox.Name, "^")), "-.")
	if name == "" {
		return s.Name
	}
	return name
}

// literal is what a pattern of a pod's name says as it stands.
var literal = regexp.MustCompile(`^(?:[a-z0-9-]|\\.)*`)

func (s *Subject) facts() []fact {
	list := []fact{
		{"File", s.Name, true},
		{"SHA-256 of the text", s.Digest(), true},
		{"Size", fmt.Sprintf("%d bytes", len(s.Text)), false},
	}
	if s.Parts.Form != "" {
		list = append(list, fact{"Form", string(s.Parts.Form), false})
	}
	if s.Parts.Digest != (policytext.Digest{}) {
		list = append(list, fact{"Rules", s.Parts.Digest.String(), true})
	}
	list = append(list, fact{"Whose rules", map[Rules]string{
		Held: "this project's, of this release", HeldUpstream: "this project's, of this release, for data in upstream's shape",
		Like: "not of this release; their checks have the same names", Unknown: "from another tool",
	}[s.Rules], false})
	if s.Data == nil {
		return list
	}
	namespace := s.Data.Sandbox.Namespace
	return append(list,
		fact{"Pod name", s.Data.Sandbox.Name, true},
		fact{"Namespace", or(namespace, "any", namespace == ""), namespace != ""},
		fact{"Order of containers", or("as in the manifest, enforced", "not enforced", s.Data.Order == policydata.OrderFree), false})
}

// changers says who may change the policy.
func (s *Subject) changers() []string {
	var out []string
	switch s.stance("SetPolicyRequest") {
	case rules.Denied:
		out = append(out, "Nobody, once it is active: the policy denies every SetPolicyRequest.")
	case rules.Allowed:
		out = append(out, "The host: the policy allows every SetPolicyRequest.")
	default:
		if s.Rules == Unknown {
			out = append(out, "Whom its rules say: they have a rule for SetPolicyRequest that has to be read.")
		} else {
			out = append(out, "Nobody, once it is active: the rules deny every SetPolicyRequest.")
		}
	}
	out = append(out, "At the start of the pod whoever deploys it: the policy counts only if its SHA-256 is what the hardware attests (HOSTDATA, MRCONFIGID or a PCR) and a verifier compares it. The digest above is that number; where the policy travels in initdata it is the digest of that document instead (policyctl digest --initdata).")
	return out
}

func (s *Subject) containerRow(name string, secrets bool) containerRow {
	c := s.Data.Containers[name]
	said := sayContainer(s.Data, name, secrets)
	return containerRow{
		Name: Called(name), Anchor: anchor("container", name), Sandbox: c.Type == policydata.TypeSandbox, Unbound: !c.ImageBound(),
		Command: said.rows(topicRuns)[0].Value, User: said.rows(topicUser)[0].Note, Facts: said.facts(), Extra: extraCapabilities(s.Data, c),
		Sets: s.setLinks(c), Env: said.rows(topicVariables), Mounts: said.rows(topicMounts), Annotations: said.rows(topicAnnotations),
	}
}
