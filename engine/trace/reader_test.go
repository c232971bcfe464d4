// SPDX-License-Identifier: Apache-2.0

package trace_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/engine/trace"
	"portcullis/internal/shareddata"
)

// summary reads a recording as one word for each record or broken line.
func summary(text string) (out []string, truncated bool) {
	r := trace.NewReader(strings.NewReader(text))
	for {
		rec, err := r.Next()
		var broken *trace.LineError
		switch {
		case errors.As(err, &broken):
			out = append(out, fmt.Sprintf("broken@%d", broken.Line))
		case errors.Is(err, io.EOF):
			return out, r.Truncated()
		case err != nil:
			return append(out, err.Error()), false
		default:
			word := rec.Kind + string(rec.Request)
			if rec.Case != "" {
				word += "(" + rec.Case + ")"
			}
			if rec.Allowed != nil {
				word += fmt.Sprint("=", *rec.Allowed)
			}
			out = append(out, word)
		}
	}
}

func TestReaderKnowsEveryFormat(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
		truncated  bool
	}{
		{name: "nothing", text: ""},
		{name: "blank lines", text: "\n \n\t\n"},
		{name: "kind and request", text: `{"kind":"A","request":{"x":1}}` + "\n", want: []string{`A{"x":1}`}},
		{name: "no newline at the end", text: `{"kind":"A","request":{}}`, want: []string{`A{}`}},
		{name: "case and decision", text: `{"kind":"A","request":{},"case":"c","allowed":false}`, want: []string{`A{}(c)=false`}},
		{
			name: "decisions in place of requests are passed over",
			text: `{"kind":"A","request":{"x":1}}` + "\n" + `{"kind":"A","request":{"allowed":true,"ops":[]}}` + "\n" +
				`{"kind":"A","request":{"allowed":true}}` + "\n" + `{"kind":"A","allowed":true,"ops":[]}` + "\n",
			want: []string{`A{"x":1}`},
		},
		{name: "lines about the log are passed over", text: `{"dropped":3,"time":"2026-01-01T00:00:00Z"}`},
		{
			name: "a request with a field named allowed is a request",
			text: `{"kind":"A","request":{"allowed":true,"x":1}}`, want: []string{`A{"allowed":true,"x":1}`},
		},
		{name: "an array", text: ` [ {"kind":"A","request":{}},` + "\n" + `{"kind":"B","request":{},"allowed":true} ] `, want: []string{"A{}", "B{}=true"}},
		{name: "an array's descriptions", text: `[{"kind":"A","request":{},"description":"d"}]`, want: []string{"A{}(d)"}},
		{name: "an empty array", text: `[]`},
		{name: "an array cut off between elements", text: `[{"kind":"A","request":{}},`, want: []string{"A{}"}, truncated: true},
		{name: "an array cut off in an element", text: `[{"kind":"A","request":{}},{"ki`, want: []string{"A{}"}, truncated: true},
		{name: "an array with a broken element", text: `[{"kind":"A","request":{}}, nope]`, want: []string{"A{}", "broken@2"}},
		{name: "the old lines with input", text: `["ep":"A",{"input":{"x":1}}],` + "\n", want: []string{`A{"x":1}`}},
		{name: "the old lines without input", text: `["ep":"A",{"x":1}],` + "\n" + `["ep":"B",{}],` + "\n", want: []string{`A{"x":1}`, `B{}`}},
		{
			name: "the old lines with decisions between them",
			text: `["ep":"A",{"x":1}],` + "\n\n" + `["ep":"A",{"allowed":true,"ops":[{"op":"add","path":"/pstate/x","value":1}]}],` + "\n\n" +
				`["ep":"B",{}],` + "\n" + `["ep":"B",{"allowed":false}],` + "\n",
			want: []string{`A{"x":1}`, `B{}`},
		},
		{name: "a request under the name data", text: `{"kind":"A","data":{"x":1}}`, want: []string{`A{"x":1}`}},
		{name: "a request whose field is named input", text: `["ep":"A",{"input":{"x":1},"y":2}],`, want: []string{`A{"input":{"x":1},"y":2}`}},
		{name: "an old line cut off", text: `["ep":"A",{}],` + "\n" + `["ep":"B",{"x":`, want: []string{"A{}"}, truncated: true},
		{name: "a line cut off", text: `{"kind":"A","request":{}}` + "\n" + `{"kind":"B","requ`, want: []string{"A{}"}, truncated: true},
		{name: "a broken line between good ones", text: "{\"kind\":\"A\",\"request\":{}}\nnope\n{\"kind\":\"B\",\"request\":{}}\n", want: []string{"A{}", "broken@2", "B{}"}},
		{name: "a request that is no object", text: `{"kind":"A","request":[1]}` + "\n", want: []string{"broken@1"}},
		{name: "CRLF", text: "{\"kind\":\"A\",\"request\":{}}\r\n", want: []string{"A{}"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, truncated := summary(tt.text)
			if diff := cmp.Diff(tt.want, got); diff != "" || truncated != tt.truncated {
				t.Errorf("truncated %v, want %v; (-want +got)\n%s", truncated, tt.truncated, diff)
			}
		})
	}
}

func TestALineThatIsTooLongIsPassedOver(t *testing.T) {
	long := `{"kind":"L","request":{"x":"` + strings.Repeat("y", trace.MaxLine+4096) + `"}}`
	got, _ := summary(long + "\n" + `{"kind":"A","request":{}}`)
	if diff := cmp.Diff([]string{"broken@1", "A{}"}, got); diff != "" {
		t.Error(diff)
	}
	if got, _ = summary("[" + long + "]"); len(got) != 1 || got[0] != "broken@1" {
		t.Errorf("in an array: %d entries", len(got))
	}
}

// repeated is a recording of n bytes that is never in memory as a whole.
type repeated struct {
	head, unit []byte
	n, at      int
}

func (r *repeated) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	if r.at >= r.n {
		return 0, io.EOF
	}
	n := copy(p, r.unit[r.at%len(r.unit):])
	r.at += n
	return n, nil
}

func TestReadingALongDumpTakesConstantMemory(t *testing.T) {
	unit := []byte(`{"kind":"ExecProcessRequest","request":{"x":"` + strings.Repeat("y", 4000) + `"}}` + "\n")
	element := bytes.Replace(unit, []byte("\n"), []byte(",\n"), 1)
	for name, recording := range map[string]*repeated{
		"lines": {unit: unit, n: 64 << 20},
		"array": {head: []byte("["), unit: element, n: 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			var most uint64
			records := 0
			for r := trace.NewReader(recording); ; records++ {
				if _, err := r.Next(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if records%4000 == 0 {
					runtime.GC()
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapAlloc)
				}
			}
			if most > 16<<20 || records < 16_000 {
				t.Errorf("%d records, %d bytes of heap", records, most)
			}
		})
	}
}

func TestReaderReadsTheAgentsTestCases(t *testing.T) {
	var files []string
	err := filepath.WalkDir(shareddata.Dir(t, "corpus"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "testcases.json" {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatal("no test cases in the corpus", err)
	}
	for _, file := range files {
		recs := readAll(t, file)
		if len(recs) == 0 || recs[0].Allowed == nil || recs[0].Case == "" {
			t.Errorf("%s: %d records", file, len(recs))
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"A","request":{},"case":"c","allowed":true,"time":"2026-01-01T00:00:00Z"}` + "\n",
		`[{"kind":"A","request":{}},{"kind":"B","request":{"allowed":true,"ops":[]}}]`,
		`["ep":"A",{"input":{"x":[1,2]}}],` + "\n" + `["ep":"B",{}],`,
		`["ep":`, `[`, `[[`, `{"kind":"A","requ`, "\n\n[\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, recording []byte) {
		r := trace.NewReader(bytes.NewReader(recording))
		for range len(recording) + 2 {
			rec, err := r.Next()
			var broken *trace.LineError
			if err != nil && !errors.As(err, &broken) {
				return
			}
			if err == nil && (len(rec.Request) == 0 || rec.Request[0] != '{') {
				t.Fatalf("request %q is no object", rec.Request)
			}
		}
		t.Fatal("the reader does not come to an end")
	})
}

func TestReaderCountsWhatIsNoRequest(t *testing.T) {
	r := trace.NewReader(strings.NewReader(`{"dropped":3}` + "\n\n" + `{"kind":"A","request":{}}` + "\n" + `["ep":"A",{"allowed":true}],` + "\n" + `{"kind":"B","requ`))
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := r.PassedOver(); got != 3 {
		t.Errorf("passed over %d entries, want 3", got)
	}
}

func TestReaderKnowsTheTextOfADenial(t *testing.T) {
	for name, text := range map[string]string{
		"an event": `  Warning  Failed  2s  kubelet  Error: failed to create containerd task: failed to create shim task: rpc error: code = PermissionDenied ` +
			`desc = "CreateContainerRequest is blocked by policy: env: no such variable"` + "\n",
		"the message alone, no newline": `CreateContainerRequest is blocked by policy: env: no such variable`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trace.NewReader(strings.NewReader(text)).Next()
			var denied *trace.DeniedError
			if !errors.As(err, &denied) {
				t.Fatalf("error %v is no DeniedError", err)
			}
			if want := (trace.DeniedError{Kind: "CreateContainerRequest", Reason: "env: no such variable"}); *denied != want {
				t.Errorf("got %+v, want %+v", *denied, want)
			}
		})
	}
}

// An answer belongs to the request before it that awaits one, also after the log was opened again and counts anew, and it is looked
// for only so far ahead.
func TestReaderFindsAnswersAhead(t *testing.T) {
	far := strings.Repeat(`{"kind":"B","request":{}}`+"\n", 300)
	for _, tt := range []struct{ name, text, want string }{
		{"at once", `{"id":1,"kind":"A","request":{}}` + "\n" + `{"id":1,"agent":"done"}`, "A:done"},
		{"behind others", `{"id":1,"kind":"A","request":{}}` + "\n" + `{"id":2,"kind":"B","request":{}}` + "\n" + `{"id":2,"agent":"refused"}` + "\n" + `{"id":1,"agent":"done"}`, "A:done B:refused"},
		{"none", `{"id":1,"kind":"A","request":{}}` + "\n" + `{"kind":"B","request":{}}`, "A: B:"},
		{"of an earlier run", `{"id":1,"kind":"A","request":{}}` + "\n" + `{"id":1,"kind":"B","request":{}}` + "\n" + `{"id":1,"agent":"refused"}`, "A: B:refused"},
		{"too far", `{"id":1,"kind":"A","request":{}}` + "\n" + far + `{"id":1,"agent":"refused"}`, "A:" + strings.Repeat(" B:", 300)},
		{"in the record itself", `{"kind":"A","request":{},"agent":"refused"}`, "A:refused"},
		{"behind a broken line", `{"id":1,"kind":"A","request":{}}` + "\nnonsense\n" + `{"id":1,"agent":"done"}` + "\n" + `{"kind":"B","request":{}}`, "A: B:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := trace.NewReader(strings.NewReader(tt.text))
			var got []string
			for {
				rec, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err == nil {
					got = append(got, rec.Kind+":"+string(rec.Agent))
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
