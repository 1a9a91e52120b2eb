{{- define "certmap.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "certmap.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "certmap.name" . -}}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "certmap.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "certmap.selector" -}}
app.kubernetes.io/name: {{ include "certmap.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "certmap.labels" -}}
{{ include "certmap.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "certmap.metadata" -}}
name: {{ include "certmap.fullname" . }}
namespace: {{ include "certmap.namespace" . }}
labels: {{- include "certmap.labels" . | nindent 2 }}
{{- end -}}

{{- define "certmap.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "certmap.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "certmap.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ default .Chart.AppVersion $image.tag }}{{- end -}}
{{- end -}}

{{/* The Service whose addresses are published: namespace/name, or nothing. */}}
{{- define "certmap.publishService" -}}
{{- $config := .Values.config -}}
{{- if and $config.writeStatus $config.publishService.enabled (not $config.publishAddresses) (not $config.publishNodeAddresses) -}}
{{- if $config.publishService.pathOverride -}}
{{ $config.publishService.pathOverride }}
{{- else if .Values.service.enabled -}}
{{ include "certmap.namespace" . }}/{{ include "certmap.fullname" . }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is read, and written, where Ingresses are. */}}
{{- define "certmap.rules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
# get: what comes to be referred to later is asked for by name.
- apiGroups: [""]
  resources: [configmaps, secrets]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [list, watch]
- apiGroups: [certmap.dev]
  resources: [certmappingpolicies, routepolicies]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [list, watch]
{{- if .Values.config.writeStatus }}
- apiGroups: [networking.k8s.io]
  resources: [ingresses/status]
  verbs: [patch]
- apiGroups: [certmap.dev]
  resources: [certmappingpolicies/status, routepolicies/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.signedIdentity.manageKeys }}
# Signing keys that nobody else made.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, update]
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether certmap makes the keys of tickets itself. */}}
{{- define "certmap.sharesTickets" -}}
{{- if .Values.tls.tickets.shared -}}
{{- if .Values.tls.ticketKeySecret }}{{ fail "tls.tickets.shared has certmap make the keys of tickets, tls.ticketKeySecret somebody else: write one of them" }}{{ end -}}
{{- if not .Values.config.writeStatus }}{{ fail "tls.tickets.shared needs config.writeStatus: without it no replica leads, and nobody makes the keys" }}{{ end -}}
true
{{- end -}}
{{- end -}}

{{- define "certmap.subjects" -}}
- kind: ServiceAccount
  name: {{ include "certmap.serviceAccountName" . }}
  namespace: {{ include "certmap.namespace" . }}
{{- end -}}

{{- define "certmap.updateStrategy" -}}
{{- if .Values.updateStrategy -}}
{{ toYaml .Values.updateStrategy }}
{{- else -}}
type: RollingUpdate
{{- if or .Values.hostNetwork .Values.hostPorts.http .Values.hostPorts.https }}
rollingUpdate: {maxUnavailable: 1, maxSurge: 0}
{{- else }}
rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
{{- end }}
{{- end -}}
{{- end -}}
