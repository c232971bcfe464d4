// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// promises are what the tools say of themselves, each with a test that fails where it is not so: "FILE: what stands in it", the
// function of a test or the comment of a script.
var promises = []struct{ promise, test string }{
	{"the decision log has what the rules saw beside the request, and what the agent answered", "engine/trace/log_test.go: func TestWhatIsRecordedReadsBack("},
	{"what the agent refused has not happened", "cmd/policyctl/testdata/replay.txtar: # What the agent refused has not happened."},
	{"what is not recorded is unknown, never a denial", "cmd/policyctl/testdata/replay.txtar: # Where the recording does not say what the agent answered, and a decision hangs on it, it is not known."},
	{"what is decided otherwise than recorded comes first", "cmd/policyctl/testdata/replay.txtar: # What is decided otherwise than recorded is named first."},
	{"every form of recording is read", "engine/trace/reader_test.go: func TestReaderKnowsEveryFormat("},
	{"the oldest agents' answers, and requests under another name", "cmd/policyctl/testdata/recordings.txtar: # The oldest agents wrote their answers as lines of the same form, and requests went by another name once."},
	{"an event's text is told as such", "engine/trace/reader_test.go: func TestReaderKnowsTheTextOfADenial("},
	{"no request in a file that is not empty is exit code 3", "cmd/policyctl/testdata/recordings.txtar: # What holds no request is no recording"},
	{"--save-tests saves what happened", "cmd/policyctl/testdata/replay.txtar: # Tests hold what happened"},
	{"each hint mends what it is given for", "rules/explain/hints_test.go: func TestEachHintMendsWhatItIsGivenFor("},
	{"digest compiles", "cmd/policyctl/testdata/digest.txtar: # It is compiled: what no guest takes is refused, whatever it is."},
	{"digest reads manifests and standard input", "cmd/policyctl/testdata/digest.txtar: # Standard input, and a manifest's annotation: the same digest."},
	{"send prints what the agent said, and set-policy sends exact bytes", "cmd/policyctl/send_test.go: func TestSendToALiveGate("},
	{"report and explain agree, and say every warning of genpolicy", "rules/review/agree_test.go: func TestEveryWarningIsInReportAndExplanation("},
	{"a new warning is told too", "rules/review/agree_test.go: func TestEveryWarningInTheSourceIsTold("},
	{"the gravest things come first", "rules/review/reviewed_test.go: func TestTheGravestThingsComeFirst("},
	{"mistakes in settings are refused with file, line and suggestion", "cmd/genpolicy/testdata/script/settings-keys.txt: # Mistakes are refused with file, line and suggestion."},
	{"the manual says what policyd says", "cmd/policyd/manualpage_test.go: func TestTheManualSaysWhatTheProgramSays("},
	{"verify names what was not checked", "measure/evidence/snp_test.go: func TestNotChecked("},
	{"docs/verify.md runs as printed", "cmd/policyctl/verifypage_test.go: func TestTheVerifyPageRunsAsPrinted("},
	{"docs/operators.md runs as printed", "cmd/policyctl/operators_test.go: func TestTheOperatorsPageIsFresh("},
	{"simulate makes a pod's life, with one thing changed", "cmd/policyctl/testdata/simulate.txtar: # One field differs"},
	{"genpolicy check tells drift", "cmd/genpolicy/testdata/script/check.txt: # A manifest without a policy, one with the policy that it gives, in either form, and one that was changed since."},
	{"the Action and the hooks say yes and no", "cmd/stories/ci_test.go: func TestTheActionSaysYesAndNo("},
	{"the webhook refuses by kind", "rules/admission/judge_test.go: func TestWhatIsWrongWithAPodIsSaid("},
	{"the webhook asks for the proofs of the floor", "rules/admission/judge_test.go: func TestAFloorsProofsAreAsked("},
	{"a real API server asks the webhook", "cmd/policyctl/admit_apiserver_test.go: func TestAnAPIServerAsks("},
	{"the kubectl plugin works from kubectl's output", "cmd/policyctl/testdata/kubectl.txtar: # The kubectl plugin"},
	{"several files, folders and stdin", "cmd/genpolicy/testdata/script/arguments.txt: # Several files, as arguments and with -y, folders and stdin among them; a file named twice is done once."},
	{"charts and kustomizations are not taken for manifests", "cmd/policyctl/testdata/check.txtar: # What kustomize and Helm alone read is passed over and told, a chart is refused; nothing is rendered here."},
	{"a policy comes from standard input and from a manifest", "cmd/policyctl/testdata/replay.txtar: # So may the policy come, though not both; a manifest's annotation holds one too."},
	{"--dry-run writes nothing", "cmd/genpolicy/testdata/script/arguments.txt: # What would be done is said, and nothing is written."},
	{"NO_COLOR is heeded", "cmd/policyctl/explain_test.go: func TestColoursAreForTerminalsWithoutNoColor("},
	{"a registry on this machine needs no flag, and credentials are found", "images/registry/registry_test.go: func TestPlainHTTPOnlyToNamedHosts("},
	{"an interrupt ends with 130", "cmd/interrupt/interrupt_test.go: func TestExitCodeSaysWhatEndedTheProgram("},
	{"every setting has a meaning, and docs/settings.md is of them", "rules/settings/keys_test.go: func TestSettingsDocument("},
	{"policyd by hand needs no root", "cmd/policyd/byhand_test.go: func TestPolicydByHand("},
	{"--check-config", "cmd/policyd/byhand_test.go: func TestCheckConfig("},
	{"an install over an older one leaves nothing of it", "images/rootfs/uninstall_test.go: func TestAnInstallOverAnOlderOneLeavesNothingOfIt("},
	{"contradictions are refused before the first file", "images/rootfs/uninstall_test.go: func TestContradictionsAreRefusedBeforeTheFirstFile("},
	{"uninstall", "images/rootfs/uninstall_test.go: func TestUninstallLeavesNothing("},
	{"every verb has a manual page, shells complete", "cmd/policyctl/install_test.go: func TestEveryVerbHasAManualPage("},
	{"releases are the same bytes twice", ".ci/dist/check: diff -r \"$work/first\" \"$work/second\""},
	{"status --watch", "cmd/policyctl/metrics_test.go: func TestStatusIsWatched("},
	{"metrics are Prometheus' text", "cmd/policyctl/metrics_test.go: func TestMetricsArePrometheusText("},
}

// TestEachPromiseHasItsTest: a test that is renamed or removed takes its promise along, or is found here.
func TestEachPromiseHasItsTest(t *testing.T) {
	for _, p := range promises {
		file, words, ok := strings.Cut(p.test, ": ")
		text, err := os.ReadFile(filepath.Join(root, file))
		if !ok || err != nil || !strings.Contains(string(text), words) {
			t.Errorf("%s: nothing holds it: %s (%v)", p.promise, p.test, err)
		}
	}
}
