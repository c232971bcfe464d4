// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	corev1 "k8s.io/api/core/v1"
)

// fields classifies the fields of one Kubernetes type by their JSON names. A test
// holds that every field of every type that is reached has exactly one class.
type fields struct {
	used     string            // shapes the policy; what is below it is classified too
	harmless string            // nothing of it reaches the guest, or the rules leave it to the host
	refused  map[string]string // why a manifest that sets it gets no policy
}

// Reasons that several fields share.
const (
	noHostNamespaces = "is for namespaces of the host, which a guest does not have"
	notYet           = "is not supported"
	windowsOnly      = "is for Windows"
)

// removedIn is the reason for a driver that is in the types of Kubernetes and no longer in its code.
func removedIn(release string) string {
	return "was removed from Kubernetes in " + release + "; use a CSI driver"
}

// table has every type that is reached from a pod's specification by used fields.
var table = map[reflect.Type]fields{
	reflect.TypeFor[corev1.PodSpec](): {
		used: "automountServiceAccountToken containers enableServiceLinks hostNetwork hostUsers hostname hostnameOverride " +
			"initContainers nodeName os runtimeClassName securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace volumes resources",
		harmless: "activeDeadlineSeconds affinity dnsConfig dnsPolicy evictionResponders hostAliases imagePullSecrets nodeSelector overhead " +
			"preemptionPolicy priority priorityClassName readinessGates restartPolicy schedulerName schedulingGates schedulingGroup " +
			"subdomain terminationGracePeriodSeconds tolerations topologySpreadConstraints",
		refused: map[string]string{
			"ephemeralContainers": "are added to running pods, and no policy made beforehand can know them",
			"hostIPC":             noHostNamespaces,
			"hostPID":             noHostNamespaces,
			"resourceClaims":      "ask for devices that only the cluster knows",
		},
	},
	reflect.TypeFor[corev1.Container](): {
		used: "args command env envFrom image lifecycle livenessProbe name readinessProbe resources restartPolicy securityContext " +
			"startupProbe stdin terminationMessagePath tty volumeDevices volumeMounts workingDir",
		harmless: "imagePullPolicy ports resizePolicy restartPolicyRules stdinOnce terminationMessagePolicy",
	},
	reflect.TypeFor[corev1.PodSecurityContext](): {
		used: "appArmorProfile fsGroup runAsGroup runAsNonRoot runAsUser seccompProfile supplementalGroups " +
			"supplementalGroupsPolicy sysctls",
		harmless: "fsGroupChangePolicy seLinuxChangePolicy seLinuxOptions",
		refused:  map[string]string{"windowsOptions": windowsOnly},
	},
	reflect.TypeFor[corev1.SecurityContext](): {
		used: "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount readOnlyRootFilesystem runAsGroup runAsNonRoot " +
			"runAsUser seccompProfile",
		harmless: "seLinuxOptions",
		refused:  map[string]string{"windowsOptions": windowsOnly},
	},
	reflect.TypeFor[corev1.Capabilities]():    {used: "add drop"},
	reflect.TypeFor[corev1.AppArmorProfile](): {used: "type", harmless: "localhostProfile"},
	reflect.TypeFor[corev1.SeccompProfile]():  {used: "type", harmless: "localhostProfile"},
	reflect.TypeFor[corev1.Sysctl]():          {used: "name value"},
	reflect.TypeFor[corev1.PodOS]():           {used: "name"},
	reflect.TypeFor[corev1.ResourceRequirements](): {
		used: "limits requests", refused: map[string]string{"claims": "ask for devices that only the cluster knows"},
	},
	reflect.TypeFor[corev1.EnvVar](): {used: "name value valueFrom"},
	reflect.TypeFor[corev1.EnvVarSource](): {
		used:    "configMapKeyRef fieldRef resourceFieldRef secretKeyRef",
		refused: map[string]string{"fileKeyRef": "takes a value from a file that a container writes, which no policy can know"},
	},
	reflect.TypeFor[corev1.EnvFromSource](): {
		used: "configMapRef prefix secretRef",
	},
	reflect.TypeFor[corev1.ConfigMapEnvSource]():    {used: "name optional"},
	reflect.TypeFor[corev1.SecretEnvSource]():       {used: "name optional"},
	reflect.TypeFor[corev1.ConfigMapKeySelector]():  {used: "key name optional"},
	reflect.TypeFor[corev1.SecretKeySelector]():     {used: "key name optional"},
	reflect.TypeFor[corev1.ObjectFieldSelector]():   {used: "fieldPath", harmless: "apiVersion"},
	reflect.TypeFor[corev1.ResourceFieldSelector](): {used: "containerName divisor resource"},
	reflect.TypeFor[corev1.Probe](): {
		used: "exec",
		harmless: "failureThreshold grpc httpGet initialDelaySeconds " +
			"periodSeconds successThreshold tcpSocket terminationGracePeriodSeconds timeoutSeconds",
	},
	reflect.TypeFor[corev1.Lifecycle]():        {used: "postStart preStop stopSignal"},
	reflect.TypeFor[corev1.LifecycleHandler](): {used: "exec", harmless: "httpGet sleep tcpSocket"},
	reflect.TypeFor[corev1.ExecAction]():       {used: "command"},
	reflect.TypeFor[corev1.VolumeDevice]():     {used: "devicePath name"},
	reflect.TypeFor[corev1.VolumeMount](): {
		used:    "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
		refused: map[string]string{"bindMountOptions": notYet},
	},
	reflect.TypeFor[corev1.Volume](): {
		used: "awsElasticBlockStore azureDisk azureFile cinder configMap csi downwardAPI emptyDir ephemeral fc flexVolume gcePersistentDisk " +
			"hostPath iscsi name nfs persistentVolumeClaim portworxVolume projected secret vsphereVolume",
		refused: map[string]string{
			"cephfs": removedIn("1.31"), "flocker": removedIn("1.25"), "glusterfs": removedIn("1.26"), "photonPersistentDisk": removedIn("1.23"),
			"quobyte": removedIn("1.25"), "rbd": removedIn("1.31"), "scaleIO": removedIn("1.22"), "storageos": removedIn("1.25"),
			"gitRepo": "runs git on the node, which Kubernetes itself no longer does; clone in an init container",
			"image":   "mounts an image on the host, which the guest cannot check",
		},
	},
	reflect.TypeFor[corev1.HostPathVolumeSource]():    {used: "path", harmless: "type"},
	reflect.TypeFor[corev1.EmptyDirVolumeSource]():    {used: "medium", harmless: "mode sizeLimit"},
	reflect.TypeFor[corev1.ConfigMapVolumeSource]():   {used: "items name optional", harmless: "defaultMode defaultUser"},
	reflect.TypeFor[corev1.SecretVolumeSource]():      {used: "items optional secretName", harmless: "defaultMode defaultUser"},
	reflect.TypeFor[corev1.KeyToPath]():               {used: "key path", harmless: "mode user"},
	reflect.TypeFor[corev1.DownwardAPIVolumeSource](): {used: "items", harmless: "defaultMode defaultUser"},
	reflect.TypeFor[corev1.DownwardAPIVolumeFile]():   {used: "fieldRef path", harmless: "mode resourceFieldRef user"},
	reflect.TypeFor[corev1.ProjectedVolumeSource]():   {used: "sources", harmless: "defaultMode defaultUser"},
	reflect.TypeFor[corev1.VolumeProjection](): {
		used:     "configMap downwardAPI secret",
		harmless: "clusterTrustBundle podCertificate serviceAccountToken",
	},
	reflect.TypeFor[corev1.ConfigMapProjection]():               {used: "items name optional"},
	reflect.TypeFor[corev1.SecretProjection]():                  {used: "items name optional"},
	reflect.TypeFor[corev1.DownwardAPIProjection]():             {used: "items"},
	reflect.TypeFor[corev1.PersistentVolumeClaimVolumeSource](): {used: "readOnly", harmless: "claimName"},
	reflect.TypeFor[corev1.EphemeralVolumeSource]():             {harmless: "volumeClaimTemplate"},
	reflect.TypeFor[corev1.CSIVolumeSource]():                   {used: "readOnly", harmless: "driver fsType nodePublishSecretRef volumeAttributes"},
	reflect.TypeFor[corev1.NFSVolumeSource]():                   {used: "readOnly", harmless: "path server"},
	reflect.TypeFor[corev1.AzureFileVolumeSource]():             {used: "readOnly", harmless: "secretName shareName"},
	reflect.TypeFor[corev1.AzureDiskVolumeSource]():             {used: "readOnly", harmless: "cachingMode diskName diskURI fsType kind"},
	reflect.TypeFor[corev1.AWSElasticBlockStoreVolumeSource]():  {used: "readOnly", harmless: "fsType partition volumeID"},
	reflect.TypeFor[corev1.GCEPersistentDiskVolumeSource]():     {used: "readOnly", harmless: "fsType partition pdName"},
	reflect.TypeFor[corev1.CinderVolumeSource]():                {used: "readOnly", harmless: "fsType secretRef volumeID"},
	reflect.TypeFor[corev1.FCVolumeSource]():                    {used: "readOnly", harmless: "fsType lun targetWWNs wwids"},
	reflect.TypeFor[corev1.FlexVolumeSource]():                  {used: "readOnly", harmless: "driver fsType options secretRef"},
	reflect.TypeFor[corev1.PortworxVolumeSource]():              {used: "readOnly", harmless: "fsType volumeID"},
	reflect.TypeFor[corev1.VsphereVirtualDiskVolumeSource]():    {harmless: "fsType storagePolicyID storagePolicyName volumePath"},
	reflect.TypeFor[corev1.ISCSIVolumeSource](): {
		used:     "readOnly",
		harmless: "chapAuthDiscovery chapAuthSession fsType initiatorName iqn iscsiInterface lun portals secretRef targetPortal",
	},
}

// checkFields refuses what the table refuses, all of it at once.
func (b *builder) checkFields() error {
	faults := refusals(reflect.ValueOf(b.pod.owner.spec).Elem(), "spec", func(field, why string) error { return b.pod.fault(field, why) })
	spec := b.pod.owner.spec
	if spec.HostUsers != nil && !*spec.HostUsers {
		faults = append(faults, b.pod.fault("spec.hostUsers", "is false, and user namespaces do not reach into the guest"))
	}
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		faults = append(faults, b.pod.fault("spec.os.name", windowsOnly))
	}
	b.withoutEffect()
	return errors.Join(faults...)
}

// withoutEffect warns of what the manifest asks of the node, and Kata does not pass on.
func (b *builder) withoutEffect() {
	spec := b.pod.owner.spec
	if spec.HostNetwork {
		b.warn("spec.hostNetwork", "is true, but Kata does not offer the network of the host: the pod gets a network of its own")
	}
	const selinux = "has no effect in the guest"
	if own := b.pod.security().SELinuxOptions; own != nil && *own != (corev1.SELinuxOptions{}) {
		b.warn("spec.securityContext.seLinuxOptions", selinux)
	}
	for _, c := range b.pod.containers() {
		for i, port := range c.Ports {
			if port.HostPort != 0 && !spec.HostNetwork {
				b.warn(fmt.Sprintf("%s.ports[%d].hostPort", c.field, i),
					"is a port of the node: its network plugin has to forward it, the policy does not bind it, and Kata opens none")
			}
		}
		if own := c.security().SELinuxOptions; own != nil && *own != (corev1.SELinuxOptions{}) {
			b.warn(c.field+".securityContext.seLinuxOptions", selinux)
		}
	}
}

// refusals walks over what is set and reports every refused field.
func refusals(v reflect.Value, path string, fault func(field, why string) error) []error {
	var all []error
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return refusals(v.Elem(), path, fault)
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, refusals(v.Index(i), fmt.Sprintf("%s[%d]", path, i), fault)...)
		}
	case reflect.Struct:
		classes, known := table[v.Type()]
		if !known {
			return nil
		}
		eachField(v.Type(), func(name string, index []int) {
			field, err := v.FieldByIndexErr(index)
			if err != nil || nothing(field) {
				return
			}
			if why, ok := classes.refused[name]; ok {
				all = append(all, fault(join(path, name), why))
			} else if contains(classes.used, name) {
				all = append(all, refusals(field, join(path, name), fault)...)
			}
		})
	}
	return all
}

// nothing reports whether a field that is there says as little as one that is not: an empty list, map or object of options.
// Kinds of volumes say what they are by being there.
func nothing(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Pointer:
		return v.IsNil() || v.Type() == reflect.TypeFor[*corev1.WindowsSecurityContextOptions]() && v.Elem().IsZero()
	}
	return v.IsZero()
}

// eachField calls yield for each field of a struct as JSON has them: embedded
// structs without a name of their own are part of the struct.
func eachField(t reflect.Type, yield func(name string, index []int)) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous && f.Type.Kind() == reflect.Struct {
			eachField(f.Type, func(name string, index []int) { yield(name, append([]int{i}, index...)) })
			continue
		}
		yield(name, []int{i})
	}
}

// nearestField returns the field of a type that the end of a path, which is none
// of its fields, resembles most; "" when there is nothing like it.
func nearestField(t reflect.Type, path string) string {
	parent, wrong, found := cutLast(path, ".")
	if !found {
		parent, wrong = "", path
	}
	for part := range strings.SplitSeq(parent, ".") {
		name, _, _ := strings.Cut(part, "[")
		if t = structOf(t); t == nil {
			return ""
		}
		eachField(t, func(other string, index []int) {
			if name != "" && name == other {
				t = t.FieldByIndex(index).Type
			}
		})
	}
	best, distance := "", 3
	if t = structOf(t); t == nil {
		return ""
	}
	eachField(t, func(name string, _ []int) {
		n := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(wrong))
		if n < distance && n < len(name)/2 {
			best, distance = name, n
		}
	})
	return best
}

// structOf returns the struct that a type holds, nil when it is none.
func structOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

func contains(list, name string) bool {
	return slices.Contains(strings.Fields(list), name)
}
