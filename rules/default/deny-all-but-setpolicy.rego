# Waits for the pod's own policy: nothing else is allowed, so that nothing can have
# happened before it.
package agent_policy

import rego.v1

AddARPNeighborsRequest := false

AddSwapPathRequest := false

AddSwapRequest := false

CloseStdinRequest := false

CopyFileRequest := false

CreateContainerRequest := false

CreateSandboxRequest := false

DestroySandboxRequest := false

ExecProcessRequest := false

GetDiagnosticDataRequest := false

GetIPTablesRequest := false

GetMetricsRequest := false

GetOOMEventRequest := false

GuestDetailsRequest := false

ListInterfacesRequest := false

ListRoutesRequest := false

MemAgentCompactConfig := false

MemAgentMemcgConfig := false

MemHotplugByProbeRequest := false

OnlineCPUMemRequest := false

PauseContainerRequest := false

ReadStreamRequest := false

RemoveContainerRequest := false

RemoveStaleVirtiofsShareMountsRequest := false

ReseedRandomDevRequest := false

ResizeVolumeRequest := false

ResumeContainerRequest := false

SetGuestDateTimeRequest := false

SetIPTablesRequest := false

SetPolicyRequest := true

SignalProcessRequest := false

StartContainerRequest := false

StatsContainerRequest := false

TtyWinResizeRequest := false

UpdateContainerRequest := false

UpdateEphemeralMountsRequest := false

UpdateInterfaceRequest := false

UpdateRoutesRequest := false

VolumeStatsRequest := false

WaitProcessRequest := false

WriteStreamRequest := false

AllowRequestsFailingPolicy := false
